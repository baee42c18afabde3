// SPDX-License-Identifier: Apache-2.0
// What activations compute: to the bit what the CPU computes (cpu/kernels/activations-inl.h) and the oracle
// of the tests.
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

__device__ __forceinline__ float relu(float y) { return at_least(y, 0.0f); }

__device__ __forceinline__ float activate(const Activation& a, float y) {
  switch (a.kind) {
    case ActivationKind::kNone:
      return y;
    case ActivationKind::kRelu:
      return relu(y);
  }
  return y;
}

/// Of activations that are a lower bound (is_floor): they cost one instruction a value, without a branch.
__device__ __forceinline__ float floor_of(const Activation& a) {
  return a.kind == ActivationKind::kRelu ? 0.0f : -INFINITY;
}

}  // namespace scn::cuda
