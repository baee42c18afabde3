// SPDX-License-Identifier: Apache-2.0
// The kernels that convolutions have, and which one a problem gets.
#pragma once

#include <cuda_runtime_api.h>

#include <string>
#include <vector>

#include "cuda/convolution/config.h"
#include "cuda/convolution/convolution.h"
#include "cuda/runtime/device_limits.h"

namespace scn::cuda {

/// One kernel: its template instances, the order of its weights, its launch.
struct ConvKernel {
  const char* name;
  int32_t architecture;  // as 90; 0: all
  const char* group;     // of threads, in a config's text,
  int32_t group_threads;
  bool (*computes)(const ConvProblem& problem);  // precision and order of sums
  /// Whether it runs such a problem, which it computes, on such a device, its layout in shared memory
  /// included; if so, how.
  bool (*suits)(const ConvProblem& problem, const DeviceLimits& limits, ConvConfig* config);
  void (*pack)(const ConvConfig& config, const RawWeights& from, const WeightsView& to, cudaStream_t stream);
  void (*launch)(const ConvConfig& config, const ConvCall& call, cudaStream_t stream);
};

/// How a problem runs: by the first kernel that suits. Throws with the layer's name if none does. Calls no
/// CUDA. The environment variable SCN_FX_CUDA_KERNELS=generic leaves out what is for one architecture alone,
/// for tests.
ConvConfig choose(const ConvProblem& problem, const DeviceLimits& limits, const std::string& layer);

/// How the kernel called `name` runs a problem. Throws kArgument, with the layer's name, if it cannot.
ConvConfig choose(const ConvProblem& problem, const DeviceLimits& limits, const std::string& layer,
                  const std::string& name);
/// The names of all kernels that can, in the order of the registry.
std::vector<std::string> kernel_names(const ConvProblem& problem, const DeviceLimits& limits);

/// Asks the current device for what a config's launches need.
void prepare(ConvConfig& config, const DeviceLimits& limits);

}  // namespace scn::cuda
