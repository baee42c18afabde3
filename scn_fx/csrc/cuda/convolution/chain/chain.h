// SPDX-License-Identifier: Apache-2.0
// Convolutions whose float32 sums have a specified order, as the registry sees them.
#pragma once

#include "cuda/convolution/convolution.h"

namespace scn::cuda {

/// Of all layers in float32, and of those of few input channels in float16.
namespace chain {
bool suits(const ConvProblem& problem, const DeviceLimits& limits, ConvConfig* config);
void launch(const ConvConfig& config, const ConvCall& call, cudaStream_t stream);
}  // namespace chain

/// Of the latter, whose weights lie in shared memory.
namespace input_chain {
bool suits(const ConvProblem& problem, const DeviceLimits& limits, ConvConfig* config);
void launch(const ConvConfig& config, const ConvCall& call, cudaStream_t stream);
}  // namespace input_chain

}  // namespace scn::cuda
