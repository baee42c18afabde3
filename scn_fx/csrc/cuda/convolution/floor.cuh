// SPDX-License-Identifier: Apache-2.0
// Activations that are a lower bound cost one instruction a value, without a branch: all that the usual
// finishes need of activations.
#pragma once

#include "core/activation.h"

namespace scn::cuda {

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

/// The bound of an activation that is one (is_floor): it is at_least(y, floor_of(a)).
__device__ __forceinline__ float floor_of(const Activation& a) {
  return a.kind == ActivationKind::kRelu ? 0.0f : -INFINITY;
}

}  // namespace scn::cuda
