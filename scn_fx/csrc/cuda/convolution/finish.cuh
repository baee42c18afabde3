// SPDX-License-Identifier: Apache-2.0
// From sums to stored values: bias, activation, residual Add, rounding, requantisation. The same sequence of
// float32 operations as the CPU's (cpu/kernels/kernels-inl.h), so that int8 results agree to the bit.
#pragma once

#include <cuda_fp16.h>

#include "cuda/convolution/activations.cuh"
#include "cuda/convolution/finish.h"

namespace scn::cuda {

/// The larger one of a magnitude and that of v; NaN if either is.
__device__ __forceinline__ float larger_magnitude(float magnitude, float v) {
#if __CUDA_ARCH__ >= 800
  return at_least(fabsf(v), magnitude);
#else
  // as bits, magnitudes are ordered like whole numbers, NaN last
  return __uint_as_float(max(__float_as_uint(magnitude), __float_as_uint(fabsf(v))));
#endif
}

/// int8 has no NaN, and none comes here: the reader refuses weights, biases and ranges that could make one,
/// and float16 values that are none were counted as lost, which fails the frame.
__device__ __forceinline__ float quantised(float v) {
  return fminf(fmaxf(rintf(v), kLowestInt8), kHighestInt8);
}

/// y rounded to float16; counts what does not fit.
__device__ __forceinline__ float through_half(float y, int32_t& lost) {
  lost += !(fabsf(y) < kHalfOverflow);
  return __half2float(__float2half_rn(y));
}

/// What was lost so far by one thread.
struct Lost {
  int32_t before_add = 0, stored = 0;
};

/// One element of the Add's other operand.
__device__ __forceinline__ float other_operand(const ResidualView& r, int32_t row, int32_t column) {
  const char* at = static_cast<const char*>(r.other) + int64_t(row) * r.stride;
  if (r.type == ElementType::kInt8) return float(reinterpret_cast<const int8_t*>(at)[column]);
  if (r.type == ElementType::kFloat16) return __half2float(reinterpret_cast<const __half*>(at)[column]);
  return reinterpret_cast<const float*>(at)[column];
}

/// The Add, with the value at hand not yet quantised (`self_quantised`: already).
__device__ __forceinline__ float add_operands(const ResidualView& r, float self, float other,
                                              bool self_quantised, Lost& lost) {
  if (r.type == ElementType::kInt8) {
    if (!self_quantised) self = quantised(__fmul_rn(self, r.scales.self_factor));
    return r.self_is_second ? __fmaf_rn(other, r.scales.other_scale, __fmul_rn(self, r.scales.self_scale))
                            : __fmaf_rn(self, r.scales.self_scale, __fmul_rn(other, r.scales.other_scale));
  }
  if (r.rounds) self = through_half(self, lost.before_add);
  return __fadd_rn(self, other);
}

/// What one emission makes of a value, still as float: the stored number itself.
__device__ __forceinline__ float emitted(const EmissionView& e, float y, int32_t& lost) {
  int32_t first = 0, behind = 0;
  if (e.rounds_first) y = through_half(y, first);
  y = activate(e.activation, y);
  if (e.rounds) y = through_half(y, behind);
  lost += max(first, behind);
  return e.type == ElementType::kInt8 ? quantised(__fmul_rn(y, e.factor)) : y;
}

/// Puts one stored number into a 16-byte chunk.
__device__ __forceinline__ void put(uint32_t (&chunk)[4], ElementType form, int32_t i, float v) {
  if (form == ElementType::kInt8) {
    chunk[i >> 2] |= (uint32_t(int32_t(v)) & 0xffu) << (8 * (i & 3));
  } else if (form == ElementType::kFloat16) {
    chunk[i >> 1] |= uint32_t(__half_as_ushort(__float2half_rn(v))) << (16 * (i & 1));
  } else {
    chunk[i] = __float_as_uint(v);
  }
}

/// Adds the warp's counts to the step's two entries.
__device__ __forceinline__ void report_lost(const FinishView& f, const Lost& lost) {
  if (!__any_sync(0xffffffffu, lost.before_add | lost.stored)) return;
  if (lost.before_add) atomicAdd(&f.overflow[0], lost.before_add);
  if (lost.stored) atomicAdd(&f.overflow[1], lost.stored);
}

}  // namespace scn::cuda
