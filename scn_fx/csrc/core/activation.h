// SPDX-License-Identifier: Apache-2.0
// Which function follows a sum; core/activations-inl.h has what they compute.
#pragma once

#include <cstdint>

namespace scn {

enum class ActivationKind : int32_t {
  kNone,
  kRelu,
  kLeakyRelu,
  kSilu,
  kSigmoid,
  kTanh,
  kGelu,
  kGeluTanh,
  kRelu6,
  kHardswish,
  kHardsigmoid,
};

struct Activation {
  ActivationKind kind = ActivationKind::kNone;
  float parameter = 0.0f;  // of kinds that have one
};

}  // namespace scn
