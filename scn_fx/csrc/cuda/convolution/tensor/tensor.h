// SPDX-License-Identifier: Apache-2.0
// The tensor-core convolution for all GPUs as the registry sees it.
#pragma once

#include "cuda/convolution/convolution.h"

namespace scn::cuda::tensor {

bool suits(const ConvProblem& problem, const DeviceLimits& limits, ConvConfig* config);
void launch(const ConvConfig& config, const ConvCall& call, cudaStream_t stream);

}  // namespace scn::cuda::tensor
