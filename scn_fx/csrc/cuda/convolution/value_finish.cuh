// SPDX-License-Identifier: Apache-2.0
// What follows a sum, value by value: residual Add, rounding, requantisation. The same sequence of float32
// operations as the CPU's (cpu/kernels/kernels-inl.h), so that int8 results agree to the bit.
#pragma once

#include "cuda/convolution/activations.cuh"
#include "cuda/convolution/finish.h"
#include "cuda/convolution/lost.cuh"
#include "cuda/convolution/quantise.cuh"

namespace scn::cuda {

/// One element of the Add's other operand.
__device__ __forceinline__ float other_operand(const ResidualView& r, int32_t row, int32_t column) {
  const char* at = static_cast<const char*>(r.other) + int64_t(row) * r.stride;
  if (r.type == ElementType::kInt8) return float(reinterpret_cast<const int8_t*>(at)[column]);
  if (r.type == ElementType::kFloat16) return __half2float(reinterpret_cast<const __half*>(at)[column]);
  return reinterpret_cast<const float*>(at)[column];
}

/// The product of two stored values.
__device__ __forceinline__ float multiply_operands(const ResidualView& r, float self, float other) {
  const float product = __fmul_rn(self, other);
  return r.type == ElementType::kInt8 ? __fmul_rn(product, r.scale) : product;
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
__device__ __forceinline__ float emitted(const EmissionView& e, float y, int32_t column, int32_t& lost) {
  int32_t first = 0, behind = 0;
  if (e.rounds_first) y = through_half(y, first);
  if (e.scale) y = __fadd_rn(__fmul_rn(y, __ldg(e.scale + column)), __ldg(e.shift + column));
  y = activate(e.activation, y);
  if (e.rounds) y = through_half(y, behind);
  lost += max(first, behind);
  return e.type == ElementType::kInt8 ? quantised(__fmul_rn(y, e.factor)) : y;
}

}  // namespace scn::cuda
