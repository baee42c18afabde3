// SPDX-License-Identifier: Apache-2.0
// Activations of a thread's values: what core/activations-inl.h is made of.
#pragma once

#include "core/both.h"
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
