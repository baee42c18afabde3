// SPDX-License-Identifier: Apache-2.0
// int8 values of a lane: the Add of two, and how they are packed.
#pragma once

#include "cuda/convolution/lane_values.cuh"

namespace scn::cuda {

__device__ __forceinline__ float clamped(float v) { return fminf(fmaxf(v, kLowestInt8), kHighestInt8); }
__device__ __forceinline__ float quantised_fast(float v) {
  return __fsub_rn(__fadd_rn(clamped(v), kRounder), kRounder);
}

template <int Count, int Run>
__device__ __forceinline__ void add_int8(const ResidualView& r, float (&y)[Count][Run],
                                         const LaneResidual<Count, Run>& other) {
  const float self_factor = r.scales.self_factor, self_scale = r.scales.self_scale,
              other_scale = r.scales.other_scale;
  const bool second = r.self_is_second;
#pragma unroll
  for (int i = 0; i < Count; ++i) {
#pragma unroll
    for (int k = 0; k < Run; ++k) {
      const float o = float(int8_t(other[i][k / 4] >> (8 * (k % 4))));
      const float q = quantised_fast(__fmul_rn(y[i][k], self_factor));
      // fma(first operand, its scale, second operand * its scale)
      y[i][k] = second ? __fmaf_rn(o, other_scale, __fmul_rn(q, self_scale))
                       : __fmaf_rn(q, self_scale, __fmul_rn(o, other_scale));
    }
  }
}

/// int8 of values that are clamped here, at `lowest` and 127; none of them is NaN (see quantised).
template <int Run>
__device__ __forceinline__ void pack_int8(Words<Run>& words, const float (&v)[Run], float factor,
                                          float lowest) {
#pragma unroll
  for (int k = 0; k < Run; k += 4) {
    uint32_t bits[4] = {};
#pragma unroll
    for (int b = 0; b < 4 && k + b < Run; ++b) {
      const float q = fminf(fmaxf(__fmul_rn(v[k + b], factor), lowest), 127.0f);
      bits[b] = __float_as_uint(__fadd_rn(q, kRounder));
    }
    words[k / 4] = __byte_perm(bits[0], bits[1], 0x0040);
    if constexpr (Run >= 4)
      words[k / 4] = __byte_perm(words[k / 4], __byte_perm(bits[2], bits[3], 0x0040), 0x5410);
  }
}

}  // namespace scn::cuda
