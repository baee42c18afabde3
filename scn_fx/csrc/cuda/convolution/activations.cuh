// SPDX-License-Identifier: Apache-2.0
// Activations of a thread's values: what core/activations-inl.h is made of.
#pragma once

#include "core/both.h"
#include "cuda/convolution/finish_kind.h"
#include "cuda/convolution/floor.cuh"

namespace scn {
namespace {

using cuda::at_least;

SCN_FX_LANES float add(float a, float b) { return __fadd_rn(a, b); }
SCN_FX_LANES float mul(float a, float b) { return __fmul_rn(a, b); }
SCN_FX_LANES float divide(float a, float b) { return __fdiv_rn(a, b); }
SCN_FX_LANES float relu(float v) { return at_least(v, 0.0f); }
SCN_FX_LANES float splat_as(float, float f) { return f; }
SCN_FX_LANES float at_most(float v, float f) { return v > f ? f : v; }
SCN_FX_LANES float where_positive(float v, float yes, float no) { return v > 0.0f ? yes : no; }
SCN_FX_LANES float half_power_of_two(float v) { return __uint_as_float((__float_as_uint(v) + 126u) << 23); }

}  // namespace
}  // namespace scn

#include "core/activations-inl.h"

namespace scn::cuda {

/// Activates a thread's values. The usual ones cost one instruction each; for the others there is one piece
/// of code, which takes the values one by one from local memory, so that it costs the usual ones no
/// registers.
template <int Size>
__device__ __forceinline__ void activate_all(const Activation& a, float (&v)[Size]) {
  if (is_floor(a)) {
    const float least = floor_of(a);
#pragma unroll
    for (int i = 0; i < Size; ++i) v[i] = at_least(v[i], least);
    return;
  }
  float each[Size];
#pragma unroll
  for (int i = 0; i < Size; ++i) each[i] = v[i];
#pragma unroll 1
  for (int i = 0; i < Size; ++i) each[i] = rare_activation(a, each[i]);
#pragma unroll
  for (int i = 0; i < Size; ++i) v[i] = each[i];
}

}  // namespace scn::cuda
