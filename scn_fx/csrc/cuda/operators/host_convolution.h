// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/layer.h"
#include "cuda/operators/operators.h"

namespace scn::cuda {

/// A call of host memory as one of a device, without addresses. Throws for sizes and ranges that are
/// not usable.
CudaConvolutionCall device_call(int device, const ConvolutionCall& call);

}  // namespace scn::cuda
