// SPDX-License-Identifier: Apache-2.0
// To int8, value by value.
#pragma once

#include "core/numerics.h"

namespace scn::cuda {

/// int8 has no NaN, and none comes here: the reader refuses weights, biases and ranges that could make one,
/// and float16 values that are none were counted as lost, which fails the frame.
__device__ __forceinline__ float quantised(float v) {
  return fminf(fmaxf(rintf(v), kLowestInt8), kHighestInt8);
}

}  // namespace scn::cuda
