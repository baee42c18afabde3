// SPDX-License-Identifier: Apache-2.0
// The tensor-core convolution for all GPUs. A warp takes 16 output rows: each lane fetches its bytes of the input
// rows straight to the registers of mma.sync, one unit ahead; weights come fragment by fragment through the
// first-level cache, which the warps of a multiprocessor share.
#pragma once

#include "cuda/fragment_finish.cuh"
#include "cuda/gather.cuh"
#include "cuda/mma.cuh"

namespace scn::cuda {

constexpr int32_t kTensorThreads = kTileRows / 16 * 32;  // a block takes one tile after another

template <typename T, int N, int Offsets>
__global__ __launch_bounds__(kTensorThreads) void tensor_convolution(const __grid_constant__ TensorParams p) {
  using Sum = typename Accumulator<T>::type;
  constexpr int kFragments = N / 8, kQuads = N / 16, kRun = N / 4;
  const int32_t lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const int32_t place_in_tile = warp * 16 + (lane >> 2) * 2;
  const int32_t volume = p.map.geometry.volume, count = *p.map.output.count;
  const int32_t tiles = (count + kTileRows - 1) / kTileRows;
  const uint4* const weights = p.weights + int64_t(blockIdx.y) * p.units * kUnitSteps * kQuads * 32 + lane;
  launch_dependents();
  wait_for_dependency();
  // The first-level cache may hold lines from before the layer before wrote them.
  if (threadIdx.x == 0) acquire_device();
  __syncthreads();

  LanePlace place;
  place.rows = count;
  place.channel = int32_t(blockIdx.y) * N + (lane & 3) * kRun;
  Lost lost;
  for (int32_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    const char* const record = p.map.tiles + int64_t(tile) * p.map.tile_bytes;
    const auto fetch = [&](UnitBytes& bytes, int32_t unit) {
      const int32_t slab = Offsets == 1 ? unit / volume : 0;
      const int32_t offset = Offsets == 1 ? unit - slab * volume : unit * Offsets + lane_offset<Offsets>();
      MapEntry entry = kNoEntry;
      if (Offsets == 1 || offset < volume) {  // the last unit may have more offsets than there are
        entry.distances =
            __ldg(reinterpret_cast<const uint32_t*>(record + offset * (kTileRows * 2) + place_in_tile * 2));
        entry.base = __ldg(reinterpret_cast<const int32_t*>(record + bases_at(volume)) + offset);
      }
      bytes.fetch_far(entry, p.map.far + place_in_tile, p.x + slab * kUnitBytes + lane_byte<Offsets>(),
                      p.x_stride);
    };
    Sum sums[kFragments][4] = {};
    UnitBytes next;
    fetch(next, 0);
    const uint4* w = weights;
    for (int32_t unit = 0; unit < p.units; ++unit) {
      UnitFragment a;
      next.to(a, p.zero);
      if (unit + 1 < p.units) fetch(next, unit + 1);
#pragma unroll
      for (int step = 0; step < kUnitSteps; ++step) {
#pragma unroll
        for (int n = 0; n < kQuads; ++n, w += 32) {
          const uint4 b = __ldg(w);
          multiply(sums[2 * n], a[step], b.x, b.y, T{});
          multiply(sums[2 * n + 1], a[step], b.z, b.w, T{});
        }
      }
    }
    place.row = tile * kTileRows + warp * 16 + (lane >> 2);
    LaneResidual<kRun> residual;
    fetch_residual<kRun>(residual, p.finish.residual, place);
    finish_tile<T, FinishKind::kAny>(p.finish, sums, p.finish.scale + place.channel, p.finish.bias + place.channel,
                                     residual, p.map.output, place, lost);
  }
  report_lost(p.finish, lost);
}

}  // namespace scn::cuda
