// SPDX-License-Identifier: Apache-2.0
// What plans for the CUDA backend look like. Needs no CUDA: files can be planned, and refused, anywhere.
#pragma once

#include "cuda/bounds.h"
#include "plan/traits.h"

namespace scn {

extern const BackendTraits kCudaTraits;

}  // namespace scn
