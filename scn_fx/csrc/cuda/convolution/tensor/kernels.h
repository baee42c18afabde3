// SPDX-License-Identifier: Apache-2.0
// The instances of the tensor-core convolution for all GPUs.
#pragma once

#include "cuda/convolution/tensor/tensor_shape.h"

namespace scn::cuda::tensor {

/// Null where there is none: of the usual finishes in int8 and float16, and of FinishKind::kAny.
const void* int8_kernel(const TensorVariant& variant);
const void* half_kernel(const TensorVariant& variant);
const void* any_int8_kernel(const TensorVariant& variant);
const void* any_half_kernel(const TensorVariant& variant);

}  // namespace scn::cuda::tensor
