// SPDX-License-Identifier: Apache-2.0
// The instances of Hopper's convolution.
#pragma once

#include "cuda/convolution/hopper/hopper_shape.h"

namespace scn::cuda::hopper {

/// Null where there is none, or no code for Hopper in this build: of the usual finishes in int8 and float16,
/// and of FinishKind::kAny.
const void* int8_kernel(const HopperVariant& variant);
const void* half_kernel(const HopperVariant& variant);
const void* any_int8_kernel(const HopperVariant& variant);
const void* any_half_kernel(const HopperVariant& variant);
/// For pairs of blocks, with int8 or float16 rows.
const void* pair_kernel(const HopperVariant& variant);

}  // namespace scn::cuda::hopper
