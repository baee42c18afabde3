// SPDX-License-Identifier: Apache-2.0
// The tensor-core convolution for all GPUs: output channels as the rows of mma.sync, output sites as its
// columns. A warp takes 32 sites. What a lane fetches of an input row lies in the order in which mma.sync
// wants its columns, so it goes from memory to the products without another instruction. Weights lie in
// shared memory, or, where they are too large, come through the first-level cache.
#pragma once

#include <type_traits>

#include "cuda/convolution/gather.cuh"
#include "cuda/convolution/lane_values.cuh"
#include "cuda/convolution/lost.cuh"
#include "cuda/convolution/tensor/mma.cuh"
#include "cuda/convolution/tensor/tensor_shape.h"
#include "cuda/convolution/tensor_params.h"
#include "cuda/runtime/device_code.cuh"

namespace scn::cuda {

constexpr int32_t kEights = kWarpSites / 8;

/// A lane's share of one unit for the sites of its warp: 16 bytes of the input row of site i of each eight.
template <int Parts>
struct SiteBytes {
  uint4 v[kEights][Parts];

  /// Those of one eight; zeros unless the row exists.
  __device__ __forceinline__ void fetch(int eight, const char* from, bool exists) {
#pragma unroll
    for (int part = 0; part < Parts; ++part) {
      v[eight][part] = make_uint4(0, 0, 0, 0);
      load_if(v[eight][part], from + part * kPartBytes, exists);
    }
  }
};

/// units[i] becomes units[i + By], cyclically.
template <int Count, int By, typename Unit>
__device__ __forceinline__ void rotate(Unit (&units)[Count], std::integral_constant<int, By>) {
  Unit before[Count];
#pragma unroll
  for (int i = 0; i < Count; ++i) before[i] = units[i];
#pragma unroll
  for (int i = 0; i < Count; ++i) units[i] = before[(i + By) % Count];
}

template <typename T, int N, int Offsets, int Parts, bool Resident, FinishKind Kind>
__global__ __launch_bounds__(tensor_threads(N),
                             2) void tensor_convolution(const __grid_constant__ TensorParams p,
                                                        const __grid_constant__ TensorLayout layout) {
  using Sum = typename Accumulator<T>::type;
  using Finish = LaneFinish<Kind>;
  constexpr int kSixteens = N / 16, kRun = N / 8, kSteps = Parts * kPartSteps;
  constexpr int kDepth = tensor_depth(N, Parts), kBlock = tensor_block(N, Parts, Kind);
  constexpr int kUnitWeights = kSteps * kSixteens * 32;  // uint4
  constexpr int kSpare = tensor_spare(N, Offsets, Parts, Kind);
  extern __shared__ __align__(128) char shared[];
  const int32_t lane = threadIdx.x & 31, warp = uniform(int32_t(threadIdx.x >> 5)), warps = blockDim.x >> 5;
  const int32_t volume = p.map.geometry.volume;
  const int32_t units = (p.units + kBlock - 1) / kBlock * kBlock;  // as weights are padded
  const uint4* const all_weights = p.weights + int64_t(blockIdx.y) * units * kUnitWeights;
  float* const scales = reinterpret_cast<float*>(shared + layout.scale_at);
  char* const map = shared + layout.map_at + warp * layout.map;
  const auto fetch_map = [&](int32_t item) {
    const char* const record = p.map.tiles + int64_t(item * kWarpSites / kTileRows) * p.map.tile_bytes;
    const uint32_t to = shared_address(map);
    const char* const distances = record + item * kWarpSites % kTileRows * 2;
    for (int32_t i = lane; i < volume * 4; i += 32)
      copy_async(to + i * 16, distances + (i >> 2) * (kTileRows * 2) + (i & 3) * 16);
    for (int32_t i = lane; i < volume; i += 32)
      copy_async_word(to + layout.bases + i * 4, record + bases_at(volume) + i * 4);
  };

  // Items, of 32 sites: neighbours of the block's others' at first, later ones far apart, so that the last
  // few spread over all blocks. Which the first one is does not depend on the number of sites.
  const int32_t first = int32_t(blockIdx.x) * warps + warp, together = int32_t(gridDim.x) * warps;
  const auto item_of = [&](int32_t round) {
    return round ? round * together + warp * int32_t(gridDim.x) + int32_t(blockIdx.x) : first;
  };
  // Nothing up to the second wait depends on the layer before: weights never change, and a layer that is the
  // first to see its map waits for it here, before it lets the next start. (An event does not do: behind a
  // captured event, too, an early launch may happen before the kernel in question has ended.)
  if (p.after_maps) wait_for_dependency();
  launch_dependents();
  // What takes longest to come is asked for first: blocks often start when the layer before has ended.
  fetch_map(min(first, (p.map.output.capacity - 1) / kWarpSites));
  const int32_t loaded_count = *p.map.output.count;
  float own_scales[(N + 31) / 32], own_biases[(N + 31) / 32];
  if (warp == 0) {
#pragma unroll
    for (int i = 0; i < (N + 31) / 32; ++i) {
      const int32_t at = i * 32 + lane;
      own_scales[i] = sizeof(T) == 1 && at < N ? __ldg(p.finish.scale + blockIdx.y * N + at) : 1.0f;
      own_biases[i] = at < N ? __ldg(p.finish.bias + blockIdx.y * N + at) : 0.0f;
    }
  }
  if (Resident) {
    for (int32_t i = threadIdx.x; i < units * kUnitWeights; i += blockDim.x)
      copy_async(shared_address(shared) + i * 16, all_weights + i);
  }
  for (int32_t i = lane; i < kSpare * 16; i += 32)  // behind the last offset, no row has a neighbour
    reinterpret_cast<uint32_t*>(map + volume * 64)[i] = 0xffffffffu;
  if (lane < kSpare) reinterpret_cast<int32_t*>(map + layout.bases)[volume + lane] = 0;
  if (warp == 0) {
#pragma unroll
    for (int i = 0; i < (N + 31) / 32; ++i) {
      const int32_t at = i * 32 + lane;
      if (at >= N) break;
      scales[at] = own_scales[i];
      scales[N + at] = own_biases[i];
    }
  }
  const int32_t count = uniform(loaded_count), items = (count + kWarpSites - 1) / kWarpSites;
  wait_copies();
  __syncthreads();

  const int32_t eighth = lane >> 2;  // the lane fetches site `eighth` of each eight
  const int32_t* const bases = reinterpret_cast<const int32_t*>(map + layout.bases);
  const uint32_t first_entry = shared_address(map) + lane_offset<Offsets>() * 64 + eighth * 4;
  const uint32_t first_base = shared_address(map) + layout.bases + lane_offset<Offsets>() * 4;
  const int32_t passes = p.x_stride / (kPartBytes * Parts);
  LanePlace<EightRows> place;
  place.rows = count;
  place.channel = int32_t(blockIdx.y) * N + eighth * kRun;
  const float* const scale = scales + eighth * kRun;
  Lost lost;
  for (int32_t round = 0;; ++round) {
    const int32_t item = item_of(round);
    if (item >= items) break;
    if (round) {
      wait_copies();
      __syncwarp();
    }
    bool far = false;
    for (int32_t i = lane; i < volume; i += 32) far |= bases[i] < 0;
    far = __any_sync(0xffffffffu, far);
    if (round == 0) wait_for_rows(p.map.output.count);
    place.row = item * kWarpSites + (lane & 3) * 2;

    uint32_t entry_at = first_entry, base_at = first_base;
    const uint32_t last_base = first_base + volume * 4;
    const char* x = p.x + lane_byte<Offsets>();
    int32_t pass = 0;
    // The bytes of the next unit. With Near, no offset has a far slot.
    const auto fetch_next = [&](SiteBytes<Parts>& bytes, auto near) {
      const int32_t base = load_shared(base_at);
#pragma unroll
      for (int pair = 0; pair < kEights / 2; ++pair) {
        const uint32_t both = uint32_t(load_shared(entry_at + pair * 32)), low = both & 0xffffu;
        int32_t rows[2] = {base + int32_t(low), base + int32_t(both >> 16)};
        bool exist[2] = {low != uint32_t(kNoNeighbour), both < uint32_t(kNoNeighbour) << 16};
        if (!decltype(near)::value && base < 0) {
          const int32_t* const slot = p.map.far + int64_t(~base) * kTileRows + item * kWarpSites % kTileRows;
          for (int i = 0; i < 2; ++i) {
            rows[i] = slot[pair * 16 + eighth * 2 + i];
            exist[i] = rows[i] >= 0;
          }
        }
#pragma unroll
        for (int i = 0; i < 2; ++i) bytes.fetch(2 * pair + i, row_at(x, rows[i], p.x_stride), exist[i]);
      }
      entry_at += Offsets * 64;
      base_at += Offsets * 4;
      if (Parts > 1 && base_at == last_base && ++pass < passes) {
        entry_at = first_entry;
        base_at = first_base;
        x += kPartBytes * Parts;
      }
    };
    Sum sums[kSixteens][kEights][4] = {};
    LaneResidual<EightRows::kCount, kRun> residual;
    const uint4* w = (Resident ? reinterpret_cast<const uint4*>(shared) : all_weights) + lane;
    const auto multiply_unit = [&](const SiteBytes<Parts>& bytes) {
#pragma unroll
      for (int step = 0; step < kSteps; ++step) {
#pragma unroll
        for (int m = 0; m < kSixteens; ++m, w += 32) {
          const uint4 a = Resident ? *w : __ldg(w);
#pragma unroll
          for (int j = 0; j < kEights; ++j) {
            const uint4& v = bytes.v[j][step / kPartSteps];
            const uint32_t words[4] = {a.x, a.y, a.z, a.w};
            multiply(sums[m][j], words, step % 2 ? v.z : v.x, step % 2 ? v.w : v.y, T{});
          }
        }
      }
    };
    Finish::template fetch<kRun>(residual, p.finish, p.map.output, place);
    if (far) {  // hardly ever: slow and small
#pragma unroll 1
      for (int32_t left = units; left; --left) {
        SiteBytes<Parts> bytes;
        fetch_next(bytes, std::false_type{});
        multiply_unit(bytes);
      }
    } else {
      SiteBytes<Parts> ahead[kDepth];
#pragma unroll
      for (int i = 0; i < kDepth; ++i) fetch_next(ahead[i], std::true_type{});
      const auto multiply_block = [&](auto more) {
#pragma unroll
        for (int i = 0; i < kBlock; ++i) {
          multiply_unit(ahead[i % kDepth]);
          if (decltype(more)::value || i + kDepth < kBlock)
            fetch_next(ahead[(i + kDepth) % kDepth], std::true_type{});
        }
        // The next block finds its first unit where this one found it.
        if (decltype(more)::value) rotate(ahead, std::integral_constant<int, kBlock % kDepth>{});
      };
      for (int32_t left = units; left > kBlock; left -= kBlock) multiply_block(std::true_type{});
      multiply_block(std::false_type{});
    }
    __syncwarp();  // all lanes have read their map
    if (item_of(round + 1) < items) fetch_map(item_of(round + 1));
    Sum ordered[EightRows::kCount][kRun];  // by site, then channel
#pragma unroll
    for (int i = 0; i < EightRows::kCount; ++i) {
#pragma unroll
      for (int k = 0; k < kRun; ++k) ordered[i][k] = sums[k / 2][i / 2][k % 2 * 2 + i % 2];
    }
    Finish::template finish<T, EightRows, kRun>(p.finish, ordered, scale, scale + N, residual, p.map.output,
                                                place, lost);
  }
  if (Finish::kCounts) report_lost(p.finish, lost);
  wait_copies();
  wait_for_dependency();  // who waits for this kernel waits for all before it, also where there is no item
}

}  // namespace scn::cuda
