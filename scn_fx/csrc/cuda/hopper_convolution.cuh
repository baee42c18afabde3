// SPDX-License-Identifier: Apache-2.0
// The convolution for Hopper. A block lives as long as the launch and runs two pipes, each of two producer
// warps and a warpgroup. Producers copy the rows that the next tile reads to shared memory while the
// warpgroup multiplies: inputs gathered row by row through ldmatrix, weights read by wgmma from shared
// memory, where they stay (small layers) or pass through a ring that feeds both pipes (large ones).
#pragma once

#include "cuda/fragment_finish.cuh"
#include "cuda/lookup.cuh"
#include "cuda/mma.cuh"
#include "cuda/tensor_params.h"
#include "cuda/wgmma.cuh"

namespace scn::cuda {

constexpr int32_t kGroupBytes = 128;  // of K: four steps of 32 bytes, whose products are in flight together
constexpr int32_t kPipes = 2;

constexpr int32_t kNoMoreTiles = -1;  // StageHeader::tile
constexpr int32_t kNoTile = -2;       // the pipe beside this one has a tile, and weights pass by for both

/// What producers tell their warpgroup about one stage.
struct StageHeader {
  int32_t tile;
  int32_t first_group, last_group;  // of the pass
  int32_t pass;
  int32_t begins, ends;  // first, last stage of its tile
  int32_t pad[2];
};

/// Shared memory of a block, in bytes from its start.
struct HopperLayout {
  int32_t stages;  // of each pipe
  int32_t ring;    // slots for groups of weights; 0: all weights stay
  int32_t weights;
  int32_t rows, table, residual, stage;  // parts of one stage, and all of it
  int32_t pipe_at, finish_at, finish_warp, barrier_at, total;
};

template <int N, bool Ring>
struct HopperShape {
  static constexpr int kFragments = N / 8;
  static constexpr int kConsumerWarps = kPipes * 4;
  // Four producer warps, so that a scheduler holds three warps and each thread 168 registers: two for the
  // rows of each pipe, or one for each and one for the weights.
  static constexpr int kRowWarps = Ring ? 1 : 2;
  static constexpr int kRowThreads = kRowWarps * 32;
  static constexpr int kThreads = (kConsumerWarps + 4) * 32;
  static constexpr int kGroupWeights = N * kGroupBytes;  // bytes
  static constexpr int kMinBlocks = !Ring && N <= 32 ? 2 : 1;
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL) || !defined(__CUDA_ARCH__)
#define SCN_FX_HOPPER_CODE 1
#else
#define SCN_FX_HOPPER_CODE 0
#endif

/// Fills one pipe's stages with the rows and tables of one tile after another; called by its row threads.
template <int ChunkShift, bool Ring>
class RowProducer {
 public:
  static constexpr int32_t kThreads = Ring ? 32 : 64, kRowShift = ChunkShift + 4, kChunks = 1 << ChunkShift;
  static constexpr int32_t kPerGroup = kGroupBytes >> kRowShift;  // offsets of a group
  static constexpr int32_t kRowsAtOnce = kThreads / kChunks;
  static constexpr int32_t kAhead = Ring ? 16 : 6;  // list entries a thread holds before it needs them

  __device__ __forceinline__ RowProducer(const TensorParams& p, const HopperLayout& layout, char* pipe,
                                         uint32_t full, uint32_t empty, int32_t thread)
      : p_(p),
        map_(p.map),
        layout_(layout),
        pipe_(pipe),
        full_(full),
        empty_(empty),
        thread_(thread),
        chunk_(thread & (kChunks - 1)),
        first_row_(thread / kChunks) {
    volume_ = map_.geometry.volume;
    groups_ = (volume_ + kPerGroup - 1) / kPerGroup;
  }

  /// `wait` is called once, before anything is read that the layer before wrote.
  template <typename Wait>
  __device__ __forceinline__ void run(int32_t block_tile, int32_t pipe, int32_t tile_step, int32_t tiles,
                                      int32_t count, const Wait& wait) {
    int32_t tile = block_tile + pipe;
    int32_t length = tile < tiles ? map_.list_length[tile] : 0;
    int32_t entry[kAhead];
    fetch(entry, tile, tile < tiles, first_row_);
    wait();
    for (; block_tile < tiles; block_tile += tile_step, tile += tile_step) {
      if (tile >= tiles) {
        if (Ring) {
          open();
          close({kNoTile, 0, groups_, 0, 0, 0, {0, 0}});
        }
        continue;
      }
      const bool more = tile + tile_step < tiles;
      const int32_t next_length = more ? map_.list_length[tile + tile_step] : 0;
      if (length >= 0) {
        for (int32_t pass = 0; pass < p_.passes; ++pass) {
          const bool ends = pass + 1 == p_.passes;
          char* const base = open();
          copy_table(base, tile);
          copy_rows(base, tile, length, pass, entry);
          if (ends) copy_residual(base, tile, count);
          fetch(entry, ends ? tile + tile_step : tile, !ends || more, first_row_);
          close({tile, 0, groups_, pass, pass == 0, ends, {0, 0}});
        }
      } else {
        wide_tile(tile, count);
        fetch(entry, tile + tile_step, more, first_row_);
      }
      length = next_length;
    }
    open();
    close({kNoMoreTiles, 0, 0, 0, 0, 0, {0, 0}});
  }

 private:
  __device__ __forceinline__ char* open() {
    hopper::barrier_wait(empty_ + stage_ * 8, parity_);
    return pipe_ + stage_ * layout_.stage;
  }

  __device__ __forceinline__ void close(const StageHeader& header) {
    if (thread_ == 0)
      *reinterpret_cast<StageHeader*>(pipe_ + stage_ * layout_.stage + layout_.stage - 128) = header;
    hopper::barrier_arrive_after_copies(full_ + stage_ * 8);
    hopper::barrier_arrive(full_ + stage_ * 8);
    if (++stage_ == layout_.stages) {
      stage_ = 0;
      parity_ ^= 1;
    }
  }

  /// List entries of this thread's rows from `row` on. What lies behind the list's end is never used.
  __device__ __forceinline__ void fetch(int32_t (&entry)[kAhead], int32_t tile, bool exists, int32_t row) {
    const int32_t* const list = map_.list + int64_t(tile) * map_.list_capacity;
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const int32_t at = row + i * kRowsAtOnce;
      entry[i] = exists && at < map_.list_capacity ? __ldg(list + at) : 0;
    }
  }

  __device__ __forceinline__ void copy_rows(char* base, int32_t tile, int32_t length, int32_t pass,
                                            int32_t (&entry)[kAhead]) {
    const char* const x = p_.x + (pass << 7) + chunk_ * 16;
    const int32_t stride = p_.x_stride;
    const uint32_t rows = shared_address(base);
    for (int32_t row = first_row_; row < length; row += kAhead * kRowsAtOnce) {
      int32_t now[kAhead];
#pragma unroll
      for (int i = 0; i < kAhead; ++i) now[i] = entry[i];
      if (row + kAhead * kRowsAtOnce < length) fetch(entry, tile, true, row + kAhead * kRowsAtOnce);
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
        const uint32_t slot = uint32_t(row + i * kRowsAtOnce) + 1;
        if (int32_t(slot) <= length)
          copy_async(rows + (slot << kRowShift) + (swizzled(slot, chunk_, ChunkShift) << 4),
                     x + int64_t(now[i]) * stride);
      }
    }
  }

  __device__ __forceinline__ void copy_table(char* base, int32_t tile) {
    const uint32_t table = shared_address(base + layout_.rows);
    const char* const from = reinterpret_cast<const char*>(map_.local + int64_t(tile) * volume_ * kTileRows);
    const int32_t bytes = volume_ * kTileRows * 2;
    for (int32_t i = thread_ * 16; i < bytes; i += kThreads * 16) copy_async(table + i, from + i);
    zero_table(base, volume_, groups_ * kPerGroup);
  }

  __device__ __forceinline__ void zero_table(char* base, int32_t from, int32_t to) {
    uint4* const table = reinterpret_cast<uint4*>(base + layout_.rows);
    for (int32_t i = from * kTileRows / 8 + thread_; i < to * kTileRows / 8; i += kThreads)
      table[i] = make_uint4(0, 0, 0, 0);
  }

  __device__ __forceinline__ void copy_residual(char* base, int32_t tile, int32_t count) {
    if (layout_.residual == 0) return;  // there is none, or it stays where it is
    const int32_t stride = p_.finish.residual.stride,
                  bytes = min(kTileRows, count - tile * kTileRows) * stride;
    const char* const from =
        static_cast<const char*>(p_.finish.residual.other) + int64_t(tile) * kTileRows * stride;
    const uint32_t to = shared_address(base + layout_.rows + layout_.table);
    for (int32_t i = thread_ * 16; i < bytes; i += kThreads * 16) copy_async(to + i, from + i);
  }

  /// A tile whose list would not fit: some offsets at a time, each with its own copies of the rows.
  __device__ __forceinline__ void wide_tile(int32_t tile, int32_t count) {
    const int32_t step = max(1, map_.list_capacity / kTileRows / kPerGroup);
    for (int32_t pass = 0; pass < p_.passes; ++pass) {
      const char* const x = p_.x + (pass << 7);
      for (int32_t first = 0; first < groups_; first += step) {
        const int32_t last = min(first + step, groups_);
        const bool ends = pass + 1 == p_.passes && last == groups_;
        char* const base = open();
        const uint32_t rows = shared_address(base);
        uint16_t* const table = reinterpret_cast<uint16_t*>(base + layout_.rows);
        const int32_t from = first * kPerGroup, to = min(last * kPerGroup, volume_);
        for (int32_t i = thread_; i < (to - from) * kTileRows; i += kThreads) {
          const int32_t out = tile * kTileRows + i % kTileRows;
          const int32_t source =
              out < count ? find_neighbour(map_, map_.output.sites[out], from + i / kTileRows) : -1;
          const uint32_t row = uint32_t(i) + 1;
          table[i] = source < 0 ? uint16_t(0) : uint16_t(row);
          if (source < 0) continue;
          for (int32_t chunk = 0; chunk < kChunks; ++chunk)
            copy_async(rows + (row << kRowShift) + (swizzled(row, chunk, ChunkShift) << 4),
                       x + int64_t(source) * p_.x_stride + chunk * 16);
        }
        zero_table(base, to - from, (last - first) * kPerGroup);
        if (ends) copy_residual(base, tile, count);
        close({tile, first, last, pass, pass == 0 && first == 0, ends, {0, 0}});
      }
    }
  }

  const TensorParams& p_;
  const MapView& map_;
  const HopperLayout& layout_;
  char* const pipe_;
  const uint32_t full_, empty_;
  const int32_t thread_, chunk_, first_row_;
  int32_t volume_, groups_, stage_ = 0;
  uint32_t parity_ = 1;  // stages start empty
};

template <typename T, int N, int ChunkShift, bool Ring>
__global__ __launch_bounds__(
    HopperShape<N, Ring>::kThreads,
    HopperShape<N, Ring>::kMinBlocks) void hopper_convolution(const __grid_constant__ TensorParams p,
                                                              const __grid_constant__ HopperLayout layout) {
#if SCN_FX_HOPPER_CODE
  using Shape = HopperShape<N, Ring>;
  using Sum = typename Accumulator<T>::type;
  extern __shared__ __align__(1024) char shared[];
  constexpr int32_t kRowShift = ChunkShift + 4, kPerGroup = kGroupBytes >> kRowShift;
  const int32_t groups = (p.map.geometry.volume + kPerGroup - 1) / kPerGroup;
  const int32_t thread = threadIdx.x, warp = thread >> 5, lane = thread & 31;
  // Barriers: full and empty of each stage of each pipe, then of each slot of weights.
  const uint32_t barriers = shared_address(shared + layout.barrier_at);
  const auto full_of = [&](int pipe) { return barriers + pipe * 2 * layout.stages * 8; };
  const auto empty_of = [&](int pipe) { return full_of(pipe) + layout.stages * 8; };
  const uint32_t weights_full = barriers + kPipes * 2 * layout.stages * 8;
  const uint32_t weights_empty = weights_full + max(layout.ring, 1) * 8;
  const char* const weights = reinterpret_cast<const char*>(p.weights) +
                              int64_t(blockIdx.y) * p.passes * groups * Shape::kGroupWeights;

  if (warp == 0) {
    const int32_t of_stages = kPipes * 2 * layout.stages, of_slots = max(layout.ring, 1);
    if (lane < of_stages) {
      const int32_t in_pipe = lane < 2 * layout.stages ? lane : lane - 2 * layout.stages;
      hopper::barrier_init(barriers + lane * 8, in_pipe < layout.stages ? 2 * Shape::kRowThreads : 128);
    } else if (lane < of_stages + 2 * of_slots) {
      hopper::barrier_init(barriers + lane * 8, lane < of_stages + of_slots ? 1 : Shape::kConsumerWarps);
    }
    hopper::barrier_init_done();
  }
  // Row 0 of every stage is zero: what missing neighbours read.
  for (int32_t i = thread; i < (kPipes * layout.stages) << ChunkShift; i += Shape::kThreads) {
    *reinterpret_cast<uint4*>(shared + layout.pipe_at + (i >> ChunkShift) * layout.stage +
                              (i & ((1 << ChunkShift) - 1)) * 16) = make_uint4(0, 0, 0, 0);
  }
  __syncthreads();

  const int32_t count = *p.map.output.count, tiles = (count + kTileRows - 1) / kTileRows;
  const int32_t first_tile = blockIdx.x * kPipes, tile_step = gridDim.x * kPipes;
  if (warp >= Shape::kConsumerWarps) {
    const int32_t producer = warp - Shape::kConsumerWarps, pipe = producer / Shape::kRowWarps;
    if (pipe < kPipes) {
      if (!Ring && producer == 0 && lane == 0 && first_tile < tiles) {
        const uint32_t bytes = uint32_t(p.passes * groups * Shape::kGroupWeights);
        hopper::barrier_expect(weights_full, bytes);
        hopper::copy_bulk(shared_address(shared), weights, bytes, weights_full);
      }
      RowProducer<ChunkShift, Ring> rows(
          p, layout, shared + layout.pipe_at + pipe * layout.stages * layout.stage, full_of(pipe),
          empty_of(pipe), producer % Shape::kRowWarps * 32 + lane);
      rows.run(first_tile, pipe, tile_step, tiles, count, [&] {
        // Maps are complete when the layer before has started; what it computes is, when it has ended.
        wait_for_dependency();
        if (producer == 0) launch_dependents();
      });
    } else if (Ring && pipe == kPipes && lane == 0) {
      int32_t slot = 0;
      uint32_t parity = 1;
      for (int32_t tile = first_tile; tile < tiles; tile += tile_step) {
        for (int32_t group = 0; group < p.passes * groups; ++group) {
          hopper::barrier_wait(weights_empty + slot * 8, parity);
          hopper::barrier_expect(weights_full + slot * 8, Shape::kGroupWeights);
          hopper::copy_bulk(shared_address(shared) + slot * Shape::kGroupWeights,
                            weights + int64_t(group) * Shape::kGroupWeights, Shape::kGroupWeights,
                            weights_full + slot * 8);
          if (++slot == layout.ring) {
            slot = 0;
            parity ^= 1;
          }
        }
      }
    }
    return;
  }

  const int32_t pipe = warp >> 2, warp_row = (warp & 3) * 16, half = lane >> 4;
  const int32_t first_column = blockIdx.y * N;
  char* const pipe_memory = shared + layout.pipe_at + pipe * layout.stages * layout.stage;
  char* const finish_stage = shared + layout.finish_at + warp * layout.finish_warp;
  const uint64_t weight_base = hopper::weight_descriptor(shared_address(shared));
  if (!Ring && first_tile + pipe < tiles) hopper::barrier_wait(weights_full, 0);

  Sum sums[Shape::kFragments][4];
  Lost lost;
  int32_t stage = 0, slot = 0, release_slot = 0;
  uint32_t parity = 0, slot_parity = 0;
  const auto next_slot = [&] {
    hopper::barrier_wait(weights_full + slot * 8, slot_parity);
    if (++slot == layout.ring) {
      slot = 0;
      slot_parity ^= 1;
    }
  };
  const auto release_slot_of_weights = [&] {
    if (lane == 0) hopper::barrier_arrive(weights_empty + release_slot * 8);
    if (++release_slot == layout.ring) release_slot = 0;
  };
  while (true) {
    const uint32_t full = full_of(pipe) + stage * 8, empty = empty_of(pipe) + stage * 8;
    hopper::barrier_wait(full, parity);
    char* const memory = pipe_memory + stage * layout.stage;
    const StageHeader header = *reinterpret_cast<const StageHeader*>(memory + layout.stage - 128);
    if (header.tile == kNoMoreTiles) break;
    if (Ring && header.tile == kNoTile) {
      for (int32_t group = 0; group < p.passes * groups; ++group) {
        next_slot();
        __syncwarp();
        release_slot_of_weights();
      }
    } else {
      const uint32_t rows = shared_address(memory);
      const uint16_t* const table =
          reinterpret_cast<const uint16_t*>(memory + layout.rows) + warp_row + (lane & 15);
      if (header.begins) {
#pragma unroll
        for (int n = 0; n < Shape::kFragments; ++n)
#pragma unroll
          for (int i = 0; i < 4; ++i) sums[n][i] = 0;
      }

      constexpr int32_t kLoads = kPerGroup > 4 ? 4 : kPerGroup;
      const uint16_t* next_entry = table + (kPerGroup > 4 ? half : 0) * kTileRows;
      uint32_t row[kLoads];
      const auto load_entries = [&] {  // one group ahead; the table ends with a spare one
#pragma unroll
        for (int i = 0; i < kLoads; ++i) row[i] = next_entry[(kPerGroup > 4 ? 2 * i : i) * kTileRows];
        next_entry += kPerGroup * kTileRows;
      };
      const auto load_inputs = [&](uint32_t (&a)[4][4]) {
#pragma unroll
        for (int step = 0; step < 4; ++step) {
          const uint32_t r = row[step * kLoads / 4];
          const uint32_t chunk = (2 * step + half) & ((1 << ChunkShift) - 1);
          load_fragment(a[step], rows + (r << kRowShift) + (swizzled(r, chunk, ChunkShift) << 4));
        }
        load_entries();
      };
      load_entries();
      const auto multiply = [&](uint32_t (&a)[4][4], int32_t group) {
        uint64_t b = weight_base;
        if (Ring) {
          b += uint32_t(slot) * (Shape::kGroupWeights >> 4);
          next_slot();
        } else {
          b += uint32_t(header.pass * groups + group) * (Shape::kGroupWeights >> 4);
        }
        hopper::product_fence();
#pragma unroll
        for (int step = 0; step < 4; ++step)
          hopper::Product<N>::multiply(sums, a[step], b + uint32_t(step) * (N * 32 >> 4), T{});
        hopper::product_commit();
      };

      // While the products of one group run, the inputs of the next are loaded.
      uint32_t even[4][4], odd[4][4];
      load_inputs(even);
      for (int32_t group = header.first_group; group < header.last_group; group += 2) {
        multiply(even, group);
        if (group > header.first_group) {
          hopper::product_wait<1>();
          if (Ring) release_slot_of_weights();
        }
        if (group + 1 < header.last_group) {
          load_inputs(odd);
          multiply(odd, group + 1);
          hopper::product_wait<1>();
          if (Ring) release_slot_of_weights();
          if (group + 2 < header.last_group) load_inputs(even);
        }
      }
      hopper::product_wait<0>();
      if (Ring) release_slot_of_weights();

      if (header.ends) {
        const int32_t row = header.tile * kTileRows + warp_row;
        const StagedResidual staged{
            layout.residual ? memory + layout.rows + layout.table + warp_row * p.finish.residual.stride
                            : nullptr,
            p.finish.residual.stride};
        finish_fragments<T, 0>(p.finish, sums, finish_stage, p.map.output, row, count, first_column, staged,
                               lost);
      }
    }
    hopper::barrier_arrive(empty);
    if (++stage == layout.stages) {
      stage = 0;
      parity ^= 1;
    }
  }
  report_lost(p.finish, lost);
#endif
}

}  // namespace scn::cuda
