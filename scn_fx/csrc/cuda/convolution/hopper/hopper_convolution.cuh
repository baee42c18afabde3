// SPDX-License-Identifier: Apache-2.0
// The convolution for Hopper. Warpgroups take tiles of 64 output rows: each lane fetches its bytes of the
// input rows straight to the registers that wgmma multiplies, several units ahead, while the weights lie in
// shared memory, all of them or, of large layers, a ring that the first thread refills.
#pragma once

#include <type_traits>

#include "cuda/convolution/accumulator.cuh"
#include "cuda/convolution/gather.cuh"
#include "cuda/convolution/hopper/dense_cells.cuh"
#include "cuda/convolution/hopper/hopper_shape.h"
#include "cuda/convolution/hopper/pair.cuh"
#include "cuda/convolution/hopper/wgmma.cuh"
#include "cuda/convolution/lane_values.cuh"
#include "cuda/convolution/lost.cuh"
#include "cuda/convolution/tensor_params.h"
#include "cuda/runtime/device_code.cuh"

namespace scn::cuda {

/// Units of so many offsets and parts; Block of them without a branch between.
template <int N, int Offsets, int Parts, int Block>
struct HopperShape {
  static constexpr int kGroups = Block / kHopperDepth;  // of weights, in a block of units
  static constexpr int kUnitWeights = N * kPartBytes * Parts;
  static constexpr int kGroupWeights = kUnitWeights * kHopperDepth;
  // Entries behind the map's last: of padding units, and of the one whose entry is read ahead.
  static constexpr int kSpare = Block * Offsets;
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL) || !defined(__CUDA_ARCH__)
#define SCN_FX_HOPPER_CODE 1
#else
#define SCN_FX_HOPPER_CODE 0
#endif

/// A lane's way through the units of K. Its map entry is read one unit ahead of the rows that it points to.
/// With OnePass, a unit is all of a row; otherwise the offsets are gone through once for each part of it.
template <int Offsets, int Parts, bool OnePass>
struct UnitWalk {
  const char* distances;  // of the map, of the lane's pair of rows: at offset 0 or, with OnePass, where it is
  const char* bases;      // the same
  const char* x;          // the lane's bytes of row 0
  int32_t stride, volume, offset, passes;
  MapEntry entry;

  __device__ __forceinline__ void read_entry() {
    const int32_t at = OnePass ? 0 : offset;
    entry.distances = *reinterpret_cast<const uint32_t*>(distances + at * (kTileRows * 2));
    entry.base = *reinterpret_cast<const int32_t*>(bases + at * 4);
  }
  /// `table_distances`, `table_bases`: of the map, at offset 0.
  __device__ __forceinline__ void begin(const char* x_of_lane, const char* table_distances,
                                        const char* table_bases) {
    x = x_of_lane;
    distances = table_distances;
    bases = table_bases;
    passes = stride / (kPartBytes * Parts);
    offset = lane_offset<Offsets>();
    if (OnePass) advance(offset);
    read_entry();
  }
  __device__ __forceinline__ void step() {
    if (OnePass) {
      advance(Offsets);
    } else {  // selects, no branch: products must not lie on paths that could diverge
      offset += Offsets;
      const bool wraps = offset == volume && passes > 1;
      offset = wraps ? 0 : offset;
      x += wraps ? kPartBytes * Parts : 0;
      passes -= wraps ? 1 : 0;
    }
    read_entry();
  }

 private:
  __device__ __forceinline__ void advance(int32_t offsets) {
    distances += offsets * (kTileRows * 2);
    bases += offsets * 4;
  }
};

/// Ring: warpgroups of a block, at most, whose weights come by a ring; 0: all weights lie in shared memory.
/// Pair: two blocks share a tile (pair.cuh), with half of each row and N columns.
template <typename T, int Offsets, int Parts, int Block, int Ring, FinishKind Kind, bool OnePass, bool Pair>
__global__ __launch_bounds__((Ring ? Ring : kWarpgroups) * 128,
                             1) void hopper_convolution(const __grid_constant__ TensorParams p,
                                                        const __grid_constant__ HopperLayout layout) {
#if SCN_FX_HOPPER_CODE
  constexpr int Columns = kLargestBlock, N = Pair ? 2 * Columns : Columns;  // finished, multiplied
  using Shape = HopperShape<N, Offsets, Parts, Block>;
  using Sum = typename Accumulator<T>::type;
  using Finish = LaneFinish<Kind>;
  constexpr bool kCells = Kind == FinishKind::kHalfDense;
  constexpr int kFragments = N / 8, kRun = Columns / 4, Depth = kHopperDepth;
  extern __shared__ __align__(1024) char shared[];
  const int32_t thread = threadIdx.x, warpgroup = uniform(thread >> 7), lane = thread & 31;
  const int32_t warpgroups = int32_t(blockDim.x >> 7);
  const int32_t volume = p.map.geometry.volume, groups = layout.groups, slots = layout.slots;
  // Of a pair, each block has the same tiles, its part of K and the finish of its part of the columns.
  const uint32_t rank = Pair ? blockIdx.x & 1u : 0u;
  const int32_t part = Pair ? int32_t(blockIdx.y * 2 + rank) : int32_t(blockIdx.y);
  const int32_t block = int32_t(Pair ? blockIdx.x >> 1 : blockIdx.x),
                blocks = int32_t(Pair ? gridDim.x >> 1 : gridDim.x);
  // Barriers: weights of a slot have come, map of a warpgroup has come, slot is empty (of a ring).
  const uint32_t weights_full = shared_address(shared + layout.barrier_at);
  const uint32_t map_full = weights_full + slots * 8, weights_empty = map_full + warpgroups * 8;
  [[maybe_unused]] const uint32_t exchange_barriers = weights_empty + slots * 8;
  const char* const weights =
      reinterpret_cast<const char*>(p.weights) + int64_t(part) * groups * Shape::kGroupWeights;
  const auto fetch_weights = [&](int32_t group, int32_t slot) {
    hopper::barrier_expect(weights_full + slot * 8, Shape::kGroupWeights);
    hopper::copy_bulk(shared_address(shared) + slot * Shape::kGroupWeights,
                      weights + int64_t(group) * Shape::kGroupWeights, Shape::kGroupWeights,
                      weights_full + slot * 8);
  };
  char* const table = shared + layout.table_at + warpgroup * layout.table;
  const auto fetch_map = [&](int32_t tile) {
    const char* const record = p.map.tiles + int64_t(tile) * p.map.tile_bytes;
    const uint32_t to = shared_address(table), barrier = map_full + warpgroup * 8;
    const uint32_t distances = uint32_t(bases_at(volume));
    hopper::barrier_expect(barrier, uint32_t(p.map.tile_bytes));
    hopper::copy_bulk(to, record, distances, barrier);
    hopper::copy_bulk(to + layout.bases, record + distances, uint32_t(p.map.tile_bytes) - distances, barrier);
  };

  // Nothing up to the second wait depends on the layer before: weights never change, and a layer that is the
  // first to see its map waits for it here, before it lets the next start. (An event does not do: behind a
  // captured event, too, an early launch may happen before the kernel in question has ended.)
  if (p.after_maps) wait_for_dependency();
  launch_dependents();
  // Tiles are dealt out to the multiprocessors one by one, so that all have the same number of them, or one
  // more. Which the first one is does not depend on the number of tiles.
  const int32_t together = blocks * warpgroups;
  const auto tile_of = [&](int32_t round) { return round * together + warpgroup * blocks + block; };
  // What takes longest to come is asked for first: blocks often start when the layer before has ended.
  if ((thread & 127) == 0) {
    hopper::barrier_init(map_full + warpgroup * 8, 1);
    hopper::barrier_init_done();
    fetch_map(min(tile_of(0), (p.map.output.capacity - 1) / kTileRows));
  }
  const int32_t count = *p.map.output.count;
  float* const scales = reinterpret_cast<float*>(shared + layout.scale_at);
  float scale = 1.0f, bias = 0.0f;
  static_assert(Columns <= 128, "one for each thread of a warpgroup");
  if (thread < Columns) {
    if (sizeof(T) == 1) scale = __ldg(p.finish.scale + part * Columns + thread);
    bias = __ldg(p.finish.bias + part * Columns + thread);
  }
  if (thread == 0) {
    for (int32_t i = 0; i < slots; ++i) hopper::barrier_init(weights_full + i * 8, 1);
    if (Ring) {
      for (int32_t i = 0; i < slots; ++i) hopper::barrier_init(weights_empty + i * 8, warpgroups * 4);
    }
    if (Pair) {
      for (int32_t i = 0; i < warpgroups; ++i) {
        hopper::barrier_init(exchange_barriers + i * 16, 1);
        hopper::barrier_init(exchange_barriers + i * 16 + 8, 4);
      }
    }
    hopper::barrier_init_done();
    for (int32_t i = 0; i < slots; ++i) fetch_weights(i, i);
  }
  {  // behind the last offset, no row has a neighbour
    for (int32_t i = thread & 127; i < Shape::kSpare * kTileRows / 2; i += 128)
      reinterpret_cast<uint32_t*>(table + volume * kTileRows * 2)[i] = 0xffffffffu;
    for (int32_t i = thread & 127; i < Shape::kSpare; i += 128)
      reinterpret_cast<int32_t*>(table + layout.bases)[(volume + 3) / 4 * 4 + i] = 0;
  }
  if (thread < Columns) {
    scales[thread] = scale;
    scales[Columns + thread] = bias;
  }
  const int32_t rows = uniform(count), tiles = (rows + kTileRows - 1) / kTileRows;
  if constexpr (Pair) hopper::cluster_arrive();
  __syncthreads();
  if constexpr (Pair) hopper::cluster_wait();  // here, since it empties the first-level cache

  // Rounds of tiles in which any warpgroup of this block has one.
  int32_t rounds = 0;
  while (rounds * together + block < tiles) ++rounds;
  if (!rounds) {  // shared memory must outlive the copies
    if (thread == 0) {
      for (int32_t i = 0; i < slots; ++i) hopper::barrier_wait(weights_full + i * 8, 0);
      for (int32_t i = 0; i < warpgroups; ++i) hopper::barrier_wait(map_full + i * 8, 0);
    }
    wait_for_dependency();  // who waits for this kernel waits for all before it
    return;
  }
  const int32_t quad = (lane >> 2) * 2 + (thread >> 5 & 3) * 16;  // place of the lane's rows in their tile
  UnitWalk<Offsets, Parts, OnePass> walk;
  const char* const table_bases = table + layout.bases;
  walk.stride = p.x_stride;
  walk.volume = volume;
  const char* const x = p.x + lane_byte<Offsets>() + (Pair ? rank * uint32_t(p.x_stride) / 2 : 0);
  LanePlace<TwoRows> place;
  place.rows = rows;
  place.channel = part * Columns + (lane & 3) * kRun;
  const uint32_t weight_base = hopper::weight_descriptor_low(shared_address(shared));
  Lost lost;
  int32_t slot = 0, free_slot = 0;
  uint32_t slot_parity = 0, map_parity = 0;
  bool fresh = true;  // resident weights: not waited for yet
  // The first thread refills a ring as soon as all warpgroups have released a slot that its own has released.
  int32_t asked = slots, released = 0, ask_slot = 0, ask_group = slots < groups ? slots : 0;
  uint32_t ask_parity = 0;
  const auto refill = [&] {
    if constexpr (Ring) {
      if (thread != 0) return;
      for (; asked < rounds * groups && asked < released + slots; ++asked) {
        hopper::barrier_wait(weights_empty + ask_slot * 8, ask_parity);
        fetch_weights(ask_group, ask_slot);
        if (++ask_group == groups) ask_group = 0;
        if (++ask_slot == slots) {
          ask_slot = 0;
          ask_parity ^= 1;
        }
      }
    }
  };
  const auto next_weights = [&](int32_t group) {
    if (Ring || fresh) hopper::barrier_wait(weights_full + (Ring ? slot : group) * 8, slot_parity);
    const uint32_t at = weight_base + uint32_t(Ring ? slot : group) * (Shape::kGroupWeights >> 4);
    if (Ring && ++slot == slots) {
      slot = 0;
      slot_parity ^= 1;
    }
    return at;
  };
  const auto release_weights = [&] {
    if constexpr (Ring) {
      __syncwarp();
      if (lane == 0) hopper::barrier_arrive(weights_empty + free_slot * 8);
      if (++free_slot == slots) free_slot = 0;
      ++released;
    }
  };

  for (int32_t round = 0; round < rounds; ++round) {
    const int32_t tile = tile_of(round);
    if (tile >= tiles) {  // others of this block still have one: let the weights pass
      if (Ring) {
        for (int32_t group = 0; group < groups; ++group) {
          refill();
          next_weights(group);
          release_weights();
        }
      }
      if (round == 0) hopper::barrier_wait(map_full + warpgroup * 8, 0);  // fetched all the same
      continue;
    }
    hopper::barrier_wait(map_full + warpgroup * 8, map_parity);
    map_parity ^= 1;
    bool far = false;
    for (int32_t i = lane; i < volume; i += 32)
      far |= *reinterpret_cast<const int32_t*>(table_bases + i * 4) < 0;
    far = __any_sync(0xffffffffu, far);
    if (round == 0) wait_for_rows(p.map.output.count);
    walk.begin(x, table + quad * 2, table_bases);
    place.row = tile * kTileRows + (thread >> 5 & 3) * 16 + (lane >> 2);
    LaneResidual<2, kRun> residual;
    [[maybe_unused]] hopper::DenseCells cells;
    const auto fetch_beside = [&] {  // what the finish needs beside the sums
      if constexpr (kCells) {
        cells.fetch(p.finish.emissions[0], p.map.output, tile * kTileRows, rows);
      } else {
        Finish::template fetch<kRun>(residual, p.finish, p.map.output, place);
      }
    };
    Sum sums[kFragments][4];
#pragma unroll
    for (int n = 0; n < kFragments; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) sums[n][i] = 0;

    const auto multiply = [&](const PartFragment& a, uint32_t b) {
      hopper::product_fence();
#pragma unroll
      for (int step = 0; step < kPartSteps; ++step)
        hopper::Product<N>::multiply(sums, a[step], hopper::weight_descriptor(b + step * (N * 32 >> 4)), T{});
      hopper::product_commit();
    };
    if (far) {  // hardly ever: slow and small
      for (int32_t group = 0; group < groups; ++group) {
        refill();
        uint32_t b = next_weights(group);
#pragma unroll 1
        for (int i = 0; i < Depth; ++i) {
          UnitBytes<Parts> bytes;
          bytes.fetch_far(walk.entry, p.map.far + quad, walk.x, walk.stride);
          walk.step();
          PartFragment a;
#pragma unroll
          for (int part = 0; part < Parts; ++part, b += N * kPartBytes >> 4) {
            bytes.to(a, part);
            multiply(a, b);
            hopper::product_wait<0>();
          }
        }
        release_weights();
      }
      fetch_beside();
    } else {
      // While the products of one part run, the next part's inputs are put into place and later units' are
      // fetched.
      UnitBytes<Parts> ahead[Depth];
#pragma unroll
      for (int i = 0; i < Depth; ++i) {
        ahead[i].fetch(walk.entry, walk.x, walk.stride);
        walk.step();
      }
      PartFragment a[2];
      const auto multiply_block = [&](int32_t first_group, auto more) {
        refill();
        uint32_t b[Shape::kGroups];
#pragma unroll
        for (int i = 0; i < Shape::kGroups; ++i) b[i] = next_weights(first_group + i);
#pragma unroll
        for (int i = 0; i < Block * Parts; ++i) {
          const int unit = i / Parts, part = i % Parts;
          ahead[unit % Depth].to(a[i % 2], part);
          multiply(a[i % 2], b[unit / Depth] + (i - unit / Depth * Depth * Parts) * (N * kPartBytes >> 4));
          if (part == Parts - 1 && (decltype(more)::value || unit + Depth < Block)) {
            ahead[unit % Depth].fetch(walk.entry, walk.x, walk.stride);
            walk.step();
          }
          hopper::product_wait<1>();
        }
        hopper::product_wait<0>();
#pragma unroll
        for (int i = 0; i < Shape::kGroups; ++i) release_weights();
      };
      int32_t group = 0;
      for (; group + Shape::kGroups < groups; group += Shape::kGroups)
        multiply_block(group, std::true_type{});
      fetch_beside();
      multiply_block(group, std::false_type{});
    }
    if (tile_of(round + 1) < tiles) {
      hopper::warpgroup_sync(warpgroup);  // all have read their map
      if ((thread & 127) == 0) fetch_map(tile_of(round + 1));
    }
    fresh = false;

    const auto finish = [&](const Sum(&own)[Columns / 8][4]) {
      Sum ordered[2][kRun];  // by row, then channel
#pragma unroll
      for (int i = 0; i < kRun; ++i) {
        ordered[0][i] = own[i / 2][i % 2];
        ordered[1][i] = own[i / 2][2 + i % 2];
      }
      const float* const scale = scales + (lane & 3) * kRun;
      if constexpr (kCells) {
        float y[2][kRun];
        scale_sums<T>(p.finish, ordered, y, scale, scale + Columns);
        cells.store(p.finish.emissions[0], y, place, part * Columns,
                    shared + layout.exchange_at + warpgroup * kCellBytes, warpgroup, round > 0, lost);
      } else {
        Finish::template finish<T, TwoRows, kRun>(p.finish, ordered, scale, scale + Columns, residual,
                                                  p.map.output, place, lost);
      }
    };
    if constexpr (Pair) {
      const hopper::Exchange exchange{
          shared_address(shared + layout.exchange_at) + warpgroup * kExchangedBytes,
          exchange_barriers + warpgroup * 16, exchange_barriers + warpgroup * 16 + 8, rank};
      Sum own[Columns / 8][4];
      exchange.run(sums, own, round, tile_of(round + 1) < tiles);
      finish(own);
    } else {
      finish(sums);
    }
  }
  if (Finish::kCounts) report_lost(p.finish, lost);
  wait_for_dependency();  // warpgroups without a tile, too
#endif
}

}  // namespace scn::cuda
