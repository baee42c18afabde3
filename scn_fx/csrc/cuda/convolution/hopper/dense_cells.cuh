// SPDX-License-Identifier: Apache-2.0
// The cells of a float16 dense map, by a warpgroup. As the sums lie, a warp would store eight sites of four
// planes at a time. Through shared memory it stores 32 sites of one plane: sites ascend, so many of those
// share a sector.
#pragma once

#include <cuda_fp16.h>

#include "cuda/convolution/hopper/hopper_shape.h"
#include "cuda/convolution/lane_values.cuh"
#include "cuda/convolution/lost.cuh"

namespace scn::cuda::hopper {

/// A barrier of one warpgroup. Its number is a constant: a kernel that computes it would reserve all sixteen.
__device__ __forceinline__ void warpgroup_sync(int32_t warpgroup) {
  switch (warpgroup) {
#define SCN_FX_SYNC(number)                                  \
  case number - 1:                                           \
    asm volatile("bar.sync " #number ", 128;" ::: "memory"); \
    break;
    SCN_FX_SYNC(1)
    SCN_FX_SYNC(2)
    SCN_FX_SYNC(3)
    SCN_FX_SYNC(4)
#undef SCN_FX_SYNC
  }
}

/// A warpgroup's values of a tile, in shared memory: kLargestBlock columns of kTileRows rows.
class DenseCells {
 public:
  /// Asks where the tile's sites lie, before it is needed.
  __device__ __forceinline__ void fetch(const EmissionView& e, const SitesView& sites, int32_t first_row,
                                        int32_t rows) {
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
      const int32_t row = first_row + int32_t(threadIdx.x & 31) + 32 * i;
      exists_[i] = row < rows;
      int4 site = make_int4(0, 0, 0, 0);
      if (exists_[i]) site = __ldg(reinterpret_cast<const int4*>(sites.sites) + row);
      entry_[i] = site.x;
      cell_[i] = (site.y * e.height + site.z) * e.width + site.w;
    }
  }

  /// `y`: the lane's values of two rows, from its sums; `column`: the first of the block; `room`: the
  /// warpgroup's kCellBytes of shared memory; `again`: it has been used before.
  template <int Run>
  __device__ __forceinline__ void store(const EmissionView& e, const float (&y)[2][Run],
                                        const LanePlace<TwoRows>& place, int32_t column, char* room,
                                        int32_t warpgroup, bool again, Lost& lost) const {
    const int32_t lane = threadIdx.x & 31, warp = threadIdx.x >> 5 & 3;
    const float lowest = floor_of(e.activation);
    if (again) warpgroup_sync(warpgroup);  // what was there has been read
    char* const to = room + (lane & 3) * Run * kCellColumnBytes + (warp * 16 + (lane >> 2)) * 2;
#pragma unroll
    for (int i = 0; i < TwoRows::kCount; ++i) {
#pragma unroll
      for (int k = 0; k < Run; ++k) {
        const float v = at_least(y[i][k], lowest);
        lost.stored += place.exists(i) && !(fabsf(v) < kHalfOverflow);
        *reinterpret_cast<__half*>(to + k * kCellColumnBytes + TwoRows::offset(i) * 2) = __float2half_rn(v);
      }
    }
    warpgroup_sync(warpgroup);
    constexpr int kColumns = kLargestBlock / 4;  // of a warp
    const char* from = room + warp * kColumns * kCellColumnBytes + lane * 2;
    column += warp * kColumns;
    const int32_t columns = min(kColumns, e.columns - column);
    __half* out[kPerLane];
#pragma unroll
    for (int i = 0; i < kPerLane; ++i)
      out[i] = static_cast<__half*>(e.out) + (int64_t(entry_[i]) * e.columns + column) * e.cells + cell_[i];
#pragma unroll 4
    for (int k = 0; k < columns; ++k, from += kCellColumnBytes) {
#pragma unroll
      for (int i = 0; i < kPerLane; ++i) {
        if (exists_[i]) *out[i] = *reinterpret_cast<const __half*>(from + 64 * i);
        out[i] += e.cells;
      }
    }
  }

 private:
  static constexpr int kPerLane = kTileRows / 32;
  int32_t entry_[kPerLane], cell_[kPerLane];
  bool exists_[kPerLane];
};

}  // namespace scn::cuda::hopper
