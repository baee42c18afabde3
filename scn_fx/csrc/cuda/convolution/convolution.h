// SPDX-License-Identifier: Apache-2.0
// Convolutions on the device: a gathering product over a tiled kernel map, then the step's finish. A problem
// gets a config (registry.h), by which weights are packed and kernels launched.
#pragma once

#include <cuda_runtime_api.h>

#include "core/layer.h"
#include "cuda/convolution/config.h"
#include "cuda/convolution/finish.h"
#include "cuda/convolution/weights.h"
#include "cuda/runtime/device_limits.h"
#include "cuda/runtime/memory.h"
#include "cuda/views.h"

namespace scn::cuda {

/// What a launch is given beside its config.
struct ConvCall {
  MapView map;
  const void* x;  // rows of config.problem.in_bytes bytes
  WeightsView weights;
  FinishView finish;  // scale and bias are filled in
  /// The kernels that make the map, or other maps that the layers behind this one read, may not have ended
  /// when this one starts.
  bool after_maps;
};

/// Runs a layer over all tiles of its map. Weights must have been there before the kernel right before this
/// one started.
void convolve(const ConvConfig& config, ConvCall call, cudaStream_t stream);

/// A layer that an engine keeps.
struct DeviceConvolution {
  ConvConfig config;
  WeightsView weights;
  DeviceArray<char> packed;
  DeviceArray<float> scale, bias;
  int64_t bytes() const { return packed.bytes() + scale.bytes() + bias.bytes(); }
};

/// Chooses how it runs on the current device and prepares its weights. Throws as check_weights() and choose()
/// do.
DeviceConvolution device_convolution(const ConvProblem& problem, const LayerWeights& source,
                                     const DeviceLimits& limits);

}  // namespace scn::cuda
