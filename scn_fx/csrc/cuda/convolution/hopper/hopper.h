// SPDX-License-Identifier: Apache-2.0
// Hopper's convolution as the registry sees it, and the instances that its files have.
#pragma once

#include "cuda/convolution/convolution.h"
#include "cuda/convolution/hopper/hopper_shape.h"

namespace scn::cuda::hopper {

bool suits(const ConvProblem& problem, const DeviceLimits& limits, ConvConfig* config);
/// By pairs of blocks that share a tile: wide rows and many columns.
bool pair_suits(const ConvProblem& problem, const DeviceLimits& limits, ConvConfig* config);
void launch(const ConvConfig& config, const ConvCall& call, cudaStream_t stream);

}  // namespace scn::cuda::hopper
