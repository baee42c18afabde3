// SPDX-License-Identifier: Apache-2.0
// Values that float16 does not have: found and counted.
#pragma once

#include <cuda_fp16.h>

#include "core/numerics.h"
#include "cuda/convolution/finish.h"
#include "cuda/convolution/floor.cuh"

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

/// y rounded to float16; counts what does not fit.
__device__ __forceinline__ float through_half(float y, int32_t& lost) {
  lost += !(fabsf(y) < kHalfOverflow);
  return __half2float(__float2half_rn(y));
}

/// What was lost so far by one thread.
struct Lost {
  int32_t before_add = 0, stored = 0;
};

/// Adds the warp's counts to the step's two entries.
__device__ __forceinline__ void report_lost(const FinishView& f, const Lost& lost) {
  if (!__any_sync(0xffffffffu, lost.before_add | lost.stored)) return;
  if (lost.before_add) atomicAdd(&f.overflow[0], lost.before_add);
  if (lost.stored) atomicAdd(&f.overflow[1], lost.stored);
}

}  // namespace scn::cuda
