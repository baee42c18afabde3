// SPDX-License-Identifier: Apache-2.0
// Which function follows a sum. Each backend has one header with what they compute: cpu/kernels/
// activations-inl.h and cuda/convolution/activations.cuh.
#pragma once

#include <cstdint>

namespace scn {

enum class ActivationKind : int32_t { kNone, kRelu };

struct Activation {
  ActivationKind kind = ActivationKind::kNone;
  float parameter = 0.0f;  // of kinds that have one
};

}  // namespace scn
