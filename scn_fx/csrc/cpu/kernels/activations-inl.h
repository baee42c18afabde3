// SPDX-License-Identifier: Apache-2.0
// What activations compute, on the sixteen lanes of a Vec16: to the bit what the GPU computes (cuda/
// convolution/activations.cuh) and the oracle of the tests.
#pragma once

#include "core/activation.h"

namespace scn {
namespace {

inline Vec16 activate(const Activation& a, const Vec16& v) {
  switch (a.kind) {
    case ActivationKind::kNone:
      return v;
    case ActivationKind::kRelu:
      return relu(v);
  }
  return v;
}

}  // namespace
}  // namespace scn
