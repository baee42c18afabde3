// SPDX-License-Identifier: Apache-2.0
// What activations compute: to the bit what the CPU computes (cpu/kernels/activations-inl.h) and the oracle
// of the tests.
#pragma once

#include "core/activation.h"
#include "cuda/convolution/floor.cuh"

namespace scn::cuda {

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

}  // namespace scn::cuda
