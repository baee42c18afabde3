// SPDX-License-Identifier: Apache-2.0
// From sums to stored values: bias, activation, residual Add, rounding, requantisation. The same sequence of
// float32 operations as the CPU's (cpu/kernels-inl.h), so that int8 results agree to the bit.
#pragma once

#include <cuda_fp16.h>

#include "cuda/finish.h"

namespace scn::cuda {

// 65520 and beyond round to infinity in float16.
constexpr float kHalfLimit = 65520.0f;

/// max(v, least) that keeps NaN, where fmaxf would give `least`; one instruction from sm_80 on. `least` is a
/// number.
__device__ __forceinline__ float at_least(float v, float least) {
#if __CUDA_ARCH__ >= 800
  float kept;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(kept) : "f"(v), "f"(least));
  return kept;
#else
  return v <= least ? least : v;
#endif
}

/// The larger one of a magnitude and that of v; NaN if either is.
__device__ __forceinline__ float larger_magnitude(float magnitude, float v) {
#if __CUDA_ARCH__ >= 800
  return at_least(fabsf(v), magnitude);
#else
  // as bits, magnitudes are ordered like whole numbers, NaN last
  return __uint_as_float(max(__float_as_uint(magnitude), __float_as_uint(fabsf(v))));
#endif
}

__device__ __forceinline__ float relu(float y) { return at_least(y, 0.0f); }

/// int8 has no NaN, and none comes here: the reader refuses weights, biases and ranges that could make one,
/// and float16 values that are none were counted as lost, which fails the frame.
__device__ __forceinline__ float quantised(float v) { return fminf(fmaxf(rintf(v), -128.0f), 127.0f); }

/// y rounded to float16; counts what does not fit.
__device__ __forceinline__ float through_half(float y, int32_t& lost) {
  lost += !(fabsf(y) < kHalfLimit);
  return __half2float(__float2half_rn(y));
}

/// What was lost so far by one thread.
struct Lost {
  int32_t before_add = 0, stored = 0;
};

/// One element of the Add's other operand.
__device__ __forceinline__ float other_operand(const ResidualView& r, int32_t row, int32_t column) {
  const char* at = static_cast<const char*>(r.other) + int64_t(row) * r.stride;
  if (r.kind == Operand::kInt8) return float(reinterpret_cast<const int8_t*>(at)[column]);
  if (r.kind == Operand::kHalf) return __half2float(reinterpret_cast<const __half*>(at)[column]);
  return reinterpret_cast<const float*>(at)[column];
}

/// The Add, with the value at hand not yet quantised (`self_quantised`: already).
__device__ __forceinline__ float add_operands(const ResidualView& r, float self, float other,
                                              bool self_quantised, Lost& lost) {
  if (r.kind == Operand::kInt8) {
    if (!self_quantised) self = quantised(__fmul_rn(self, r.self_factor));
    return r.self_is_second ? __fmaf_rn(other, r.other_scale, __fmul_rn(self, r.self_scale))
                            : __fmaf_rn(self, r.self_scale, __fmul_rn(other, r.other_scale));
  }
  if (r.through_half) self = through_half(self, lost.before_add);
  return __fadd_rn(self, other);
}

/// What one emission makes of a value, still as float: the stored number itself.
__device__ __forceinline__ float emitted(const EmissionView& e, float y, int32_t& lost) {
  if (e.relu) y = relu(y);
  if (e.through_half) y = through_half(y, lost);
  return e.form == Form::kInt8 ? quantised(__fmul_rn(y, e.factor)) : y;
}

/// Adds the warp's counts to the step's two entries.
__device__ __forceinline__ void report_lost(const FinishView& f, const Lost& lost) {
  if (!__any_sync(0xffffffffu, lost.before_add | lost.stored)) return;
  if (lost.before_add) atomicAdd(&f.overflow[0], lost.before_add);
  if (lost.stored) atomicAdd(&f.overflow[1], lost.stored);
}

}  // namespace scn::cuda
