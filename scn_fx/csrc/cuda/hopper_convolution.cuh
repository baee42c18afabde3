// SPDX-License-Identifier: Apache-2.0
// The convolution for Hopper. A block lives as long as the launch. Its producer warps copy the rows that the next
// tiles read to shared memory while its warpgroups multiply: inputs gathered row by row through ldmatrix, weights read
// by wgmma from shared memory, where they stay (small layers) or pass through a ring (large ones).
#pragma once

#include "cuda/fragment_finish.cuh"
#include "cuda/lookup.cuh"
#include "cuda/mma.cuh"
#include "cuda/tensor_params.h"
#include "cuda/wgmma.cuh"

namespace scn::cuda {

constexpr int32_t kGroupBytes = 128;  // of K: four steps of 32 bytes, whose products are in flight together

/// What a producer tells its warpgroups about one stage.
struct StageHeader {
  int32_t tile;                      // -1: no more tiles
  int32_t first_group, last_group;   // of the pass
  int32_t pass;
  int32_t begins, ends;              // first, last stage of its tile
  int32_t pad[2];
};

/// Shared memory of a block, in bytes from its start.
struct HopperLayout {
  int32_t stages;       // of each pipe
  int32_t ring;         // slots for groups of weights; 0: all weights stay
  int32_t weights;      // bytes
  int32_t rows, table, residual, stage;  // bytes: of the rows, the table, the residual; all of one stage
  int32_t pipe_at, finish_at, barrier_at, total;
};

template <typename T, int N, int Pipes, int Share>
struct HopperShape {
  static constexpr int kColumns = N / Share;           // of one warpgroup
  static constexpr int kFragments = kColumns / 8;
  static constexpr int kConsumers = Pipes * Share;     // warpgroups
  static constexpr int kProducerWarps = Share == 1 ? 2 : 3;  // of one pipe
  static constexpr int kRowThreads = 64;               // of them, for rows
  static constexpr int kThreads = kConsumers * 128 + Pipes * kProducerWarps * 32;
  static constexpr int kGroupWeights = N * kGroupBytes;  // bytes
  static constexpr int kMinBlocks = N <= 32 ? 2 : 1;
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL) || !defined(__CUDA_ARCH__)
#define SCN_FX_HOPPER_CODE 1
#else
#define SCN_FX_HOPPER_CODE 0
#endif

/// Fills stages with the rows and tables of one tile after another. Called by kRowThreads threads.
template <int ChunkShift>
__device__ __forceinline__ void produce_rows(const TensorParams& p, const HopperLayout& layout, char* pipe,
                                             uint32_t full, uint32_t empty, int32_t first_tile, int32_t tile_step,
                                             int32_t tiles, int32_t count, int32_t thread) {
  constexpr int32_t kThreads = 64, kRowShift = ChunkShift + 4, kChunks = 1 << ChunkShift;
  constexpr int32_t kPerGroup = kGroupBytes >> kRowShift;  // offsets of a group
  const MapView& map = p.map;
  const int32_t volume = map.geometry.volume, groups = (volume + kPerGroup - 1) / kPerGroup;
  const int32_t wide_groups = max(1, map.list_capacity / kTileRows / kPerGroup);
  int32_t stage = 0;
  uint32_t parity = 1;  // stages start empty
  const auto open = [&]() -> char* {
    hopper::barrier_wait(empty + stage * 8, parity);
    return pipe + stage * layout.stage;
  };
  const auto close = [&](const StageHeader& header) {
    if (thread == 0)
      *reinterpret_cast<StageHeader*>(pipe + stage * layout.stage + layout.rows + layout.table + layout.residual) =
          header;
    hopper::barrier_arrive_after_copies(full + stage * 8);
    hopper::barrier_arrive(full + stage * 8);
    if (++stage == layout.stages) {
      stage = 0;
      parity ^= 1;
    }
  };
  const auto zero_table = [&](uint16_t* table, int32_t from, int32_t to) {
    for (int32_t i = from * kTileRows / 8 + thread; i < to * kTileRows / 8; i += kThreads)
      reinterpret_cast<uint4*>(table)[i] = make_uint4(0, 0, 0, 0);
  };
  const auto copy_residual = [&](char* to, int32_t tile) {
    if (p.finish.residual.kind == Operand::kNone) return;
    const int32_t stride = p.finish.residual.stride, bytes = min(kTileRows, count - tile * kTileRows) * stride;
    const char* const from = static_cast<const char*>(p.finish.residual.other) + int64_t(tile) * kTileRows * stride;
    for (int32_t i = thread * 16; i < bytes; i += kThreads * 16) copy_async(shared_address(to) + i, from + i);
  };

  int32_t next_length = first_tile < tiles ? map.list_length[first_tile] : 0;
  for (int32_t tile = first_tile; tile < tiles; tile += tile_step) {
    const int32_t length = next_length;
    if (tile + tile_step < tiles) next_length = map.list_length[tile + tile_step];
    const int32_t* const list = map.list + int64_t(tile) * map.list_capacity;
    const int32_t step = length < 0 ? wide_groups : groups;
    for (int32_t pass = 0; pass < p.passes; ++pass) {
      const char* const x = p.x + (pass << 7);
      for (int32_t first = 0; first < groups; first += step) {
        const int32_t last = min(first + step, groups);
        // The list's first entries are on their way while the stage becomes free.
        constexpr int32_t kAhead = 4;
        int32_t entry[kAhead];
        if (length >= 0) {
#pragma unroll
          for (int i = 0; i < kAhead; ++i) {
            const int32_t at = (thread + i * kThreads) >> ChunkShift;
            entry[i] = at < length ? list[at] : -1;
          }
        }
        char* const base = open();
        const uint32_t rows = shared_address(base);
        uint16_t* const table = reinterpret_cast<uint16_t*>(base + layout.rows);
        if (length >= 0) {
          const char* const from = reinterpret_cast<const char*>(map.local + int64_t(tile) * volume * kTileRows);
          for (int32_t i = thread; i < volume * (kTileRows * 2 / 16); i += kThreads)
            copy_async(shared_address(table) + i * 16, from + i * 16);
          zero_table(table, volume, groups * kPerGroup);
          for (int32_t begin = 0; begin < length << ChunkShift; begin += kAhead * kThreads) {
            int32_t now[kAhead];
#pragma unroll
            for (int i = 0; i < kAhead; ++i) now[i] = entry[i];
#pragma unroll
            for (int i = 0; i < kAhead; ++i) {
              const int32_t at = (begin + (kAhead + i) * kThreads + thread) >> ChunkShift;
              entry[i] = at < length ? list[at] : -1;
            }
#pragma unroll
            for (int i = 0; i < kAhead; ++i) {
              const int32_t item = begin + i * kThreads + thread, chunk = item & (kChunks - 1);
              const uint32_t row = uint32_t(item >> ChunkShift) + 1;
              if (now[i] >= 0)
                copy_async(rows + (row << kRowShift) + (swizzled(row, chunk, ChunkShift) << 4),
                           x + int64_t(now[i]) * p.x_stride + chunk * 16);
            }
          }
        } else {
          const int32_t from = first * kPerGroup, to = min(last * kPerGroup, volume);
          for (int32_t i = thread; i < (to - from) * kTileRows; i += kThreads) {
            const int32_t out = tile * kTileRows + i % kTileRows;
            const int32_t source = out < count ? find_neighbour(map, map.output.sites[out], from + i / kTileRows) : -1;
            const uint32_t row = uint32_t(i) + 1;
            table[i] = source < 0 ? uint16_t(0) : uint16_t(row);
            if (source < 0) continue;
            for (int32_t chunk = 0; chunk < kChunks; ++chunk)
              copy_async(rows + (row << kRowShift) + (swizzled(row, chunk, ChunkShift) << 4),
                         x + int64_t(source) * p.x_stride + chunk * 16);
          }
          zero_table(table, to - from, (last - first) * kPerGroup);
        }
        const bool begins = pass == 0 && first == 0, ends = pass + 1 == p.passes && last == groups;
        if (ends) copy_residual(base + layout.rows + layout.table, tile);
        close({tile, first, last, pass, begins, ends, {0, 0}});
      }
    }
  }
  open();
  close({-1, 0, 0, 0, 0, 0, {0, 0}});
}

template <typename T, int N, int Pipes, int Share, int ChunkShift, bool Ring>
__global__ __launch_bounds__(HopperShape<T, N, Pipes, Share>::kThreads,
                             HopperShape<T, N, Pipes, Share>::kMinBlocks) void
hopper_convolution(const __grid_constant__ TensorParams p, const __grid_constant__ HopperLayout layout) {
#if SCN_FX_HOPPER_CODE
  using Shape = HopperShape<T, N, Pipes, Share>;
  using Sum = typename Accumulator<T>::type;
  extern __shared__ __align__(1024) char shared[];
  constexpr int32_t kRowShift = ChunkShift + 4, kPerGroup = kGroupBytes >> kRowShift;
  const MapView& map = p.map;
  const int32_t groups = (map.geometry.volume + kPerGroup - 1) / kPerGroup;
  const int32_t thread = threadIdx.x, warp = thread >> 5, lane = thread & 31;
  // Barriers: full and empty of each stage of each pipe, then of each slot of weights.
  const uint32_t barriers = shared_address(shared + layout.barrier_at);
  const auto full_of = [&](int pipe) { return barriers + pipe * 2 * layout.stages * 8; };
  const auto empty_of = [&](int pipe) { return full_of(pipe) + layout.stages * 8; };
  const uint32_t weights_full = barriers + Pipes * 2 * layout.stages * 8;
  const uint32_t weights_empty = weights_full + max(layout.ring, 1) * 8;
  const char* const weights = reinterpret_cast<const char*>(p.weights) +
                              int64_t(blockIdx.y) * p.passes * groups * Shape::kGroupWeights;

  if (thread == 0) {
    for (int pipe = 0; pipe < Pipes; ++pipe) {
      for (int32_t s = 0; s < layout.stages; ++s) {
        hopper::barrier_init(full_of(pipe) + s * 8, 2 * Shape::kRowThreads);
        hopper::barrier_init(empty_of(pipe) + s * 8, Share * 4);
      }
    }
    for (int32_t s = 0; s < max(layout.ring, 1); ++s) {
      hopper::barrier_init(weights_full + s * 8, 1);
      hopper::barrier_init(weights_empty + s * 8, Share * 4);
    }
    hopper::barrier_init_done();
  }
  // Row 0 of every stage is zero: what missing neighbours read.
  for (int32_t i = thread; i < Pipes * layout.stages << ChunkShift; i += Shape::kThreads) {
    *reinterpret_cast<uint4*>(shared + layout.pipe_at + (i >> ChunkShift) * layout.stage +
                              (i & ((1 << ChunkShift) - 1)) * 16) = make_uint4(0, 0, 0, 0);
  }
  __syncthreads();

  const int32_t count = *map.output.count, tiles = (count + kTileRows - 1) / kTileRows;
  if (warp >= Shape::kConsumers * 4) {
    const int32_t producer = warp - Shape::kConsumers * 4;
    const int32_t pipe = producer / Shape::kProducerWarps, role = producer % Shape::kProducerWarps;
    const int32_t first_tile = blockIdx.x * Pipes + pipe, tile_step = gridDim.x * Pipes;
    if (role < 2) {
      if (!Ring && producer == 0 && lane == 0) {
        const uint32_t bytes = uint32_t(p.passes * groups * Shape::kGroupWeights);
        hopper::barrier_expect(weights_full, bytes);
        hopper::copy_bulk(shared_address(shared), weights, bytes, weights_full);
      }
      produce_rows<ChunkShift>(p, layout, shared + layout.pipe_at + pipe * layout.stages * layout.stage,
                               full_of(pipe), empty_of(pipe), first_tile, tile_step, tiles, count, role * 32 + lane);
    } else if (Ring && lane == 0) {
      int32_t slot = 0;
      uint32_t parity = 1;
      for (int32_t tile = first_tile; tile < tiles; tile += tile_step) {
        // Wide tiles visit the groups pass by pass too, only in more stages.
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

  const int32_t consumer = warp / 4, pipe = consumer / Share, part = consumer % Share;
  const int32_t warp_row = (warp & 3) * 16, row_in_tile = warp_row + (lane & 15), half = lane >> 4;
  const int32_t first_column = blockIdx.y * N + part * Shape::kColumns;
  char* const pipe_memory = shared + layout.pipe_at + pipe * layout.stages * layout.stage;
  char* const finish_stage =
      shared + layout.finish_at + warp * ((layout.barrier_at - layout.finish_at) / (Shape::kConsumers * 4));
  const uint64_t weight_base = hopper::weight_descriptor(shared_address(shared) + part * Shape::kFragments * 256);
  if (!Ring) hopper::barrier_wait(weights_full, 0);

  Sum sums[Shape::kFragments][4];
  Lost lost;
  int32_t stage = 0, slot = 0, release_slot = 0;
  uint32_t parity = 0, slot_parity = 0;
  while (true) {
    const uint32_t full = full_of(pipe) + stage * 8, empty = empty_of(pipe) + stage * 8;
    hopper::barrier_wait(full, parity);
    char* const memory = pipe_memory + stage * layout.stage;
    const StageHeader header =
        *reinterpret_cast<const StageHeader*>(memory + layout.rows + layout.table + layout.residual);
    if (header.tile < 0) break;
    const uint32_t rows = shared_address(memory);
    const uint16_t* const table = reinterpret_cast<const uint16_t*>(memory + layout.rows) + row_in_tile;
    if (header.begins) {
#pragma unroll
      for (int n = 0; n < Shape::kFragments; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i) sums[n][i] = 0;
    }

    const auto load_inputs = [&](uint32_t (&a)[4][4], int32_t group) {
      const int32_t first = (group - header.first_group) * kPerGroup;
      constexpr int32_t kLoads = kPerGroup > 4 ? 4 : kPerGroup;
      uint32_t row[kLoads];
#pragma unroll
      for (int i = 0; i < kLoads; ++i)
        row[i] = table[(first + (kPerGroup > 4 ? 2 * i + half : i)) * kTileRows];
#pragma unroll
      for (int step = 0; step < 4; ++step) {
        const uint32_t r = row[step * kLoads / 4];
        const uint32_t chunk = (2 * step + half) & ((1 << ChunkShift) - 1);
        load_fragment(a[step], rows + (r << kRowShift) + (swizzled(r, chunk, ChunkShift) << 4));
      }
    };
    const auto multiply = [&](uint32_t (&a)[4][4], int32_t group) {
      uint64_t b = weight_base;
      if (Ring) {
        hopper::barrier_wait(weights_full + slot * 8, slot_parity);
        b += uint32_t(slot) * (Shape::kGroupWeights >> 4);
        if (++slot == layout.ring) {
          slot = 0;
          slot_parity ^= 1;
        }
      } else {
        b += uint32_t(header.pass * groups + group) * (Shape::kGroupWeights >> 4);
      }
      hopper::product_fence();
#pragma unroll
      for (int step = 0; step < 4; ++step)
        hopper::Product<Shape::kColumns>::multiply(sums, a[step], b + uint32_t(step) * (N * 32 >> 4), T{});
      hopper::product_commit();
    };
    const auto release_weights = [&] {
      if (!Ring) return;
      if (lane == 0) hopper::barrier_arrive(weights_empty + release_slot * 8);
      if (++release_slot == layout.ring) release_slot = 0;
    };

    uint32_t even[4][4], odd[4][4];
    load_inputs(even, header.first_group);
    for (int32_t group = header.first_group; group < header.last_group; group += 2) {
      multiply(even, group);
      if (group > header.first_group) {
        hopper::product_wait<1>();
        release_weights();
      }
      if (group + 1 < header.last_group) {
        load_inputs(odd, group + 1);
        multiply(odd, group + 1);
        hopper::product_wait<1>();
        release_weights();
        if (group + 2 < header.last_group) load_inputs(even, group + 2);
      }
    }
    hopper::product_wait<0>();
    release_weights();

    if (header.ends) {
      const int32_t row = header.tile * kTileRows + warp_row;
      float y[Shape::kFragments][4];
      const StagedResidual staged{memory + layout.rows + layout.table + warp_row * p.finish.residual.stride,
                                  p.finish.residual.stride};
      finish_sums<T>(p.finish, sums, y, row, count, first_column, staged, lost);
      __syncwarp();
      if (lane == 0) hopper::barrier_arrive(empty);
      emit_forms(p.finish, y, finish_stage, map.output, row, count, first_column, lost);
    } else {
      __syncwarp();
      if (lane == 0) hopper::barrier_arrive(empty);
    }
    if (++stage == layout.stages) {
      stage = 0;
      parity ^= 1;
    }
  }
  report_lost(p.finish, lost);
#endif
}

}  // namespace scn::cuda
