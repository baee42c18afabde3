// SPDX-License-Identifier: Apache-2.0
// Convolutions on the device: a gathering product over a tiled kernel map, then the step's finish.
#pragma once

#include <cuda_runtime_api.h>

#include <string>
#include <vector>

#include "core/layer.h"
#include "cuda/convolution/finish.h"
#include "cuda/runtime/device_limits.h"
#include "cuda/runtime/memory.h"
#include "cuda/views.h"

namespace scn::cuda {

/// How the products of a layer are formed.
enum class Product {
  kTensorInt8,  // exact
  kTensorHalf,  // float32 sums in the order of the tensor cores
  kChainHalf,   // float32 sums in the specified order: offsets ascending, then channels
  kChainFloat,
};

/// What decides in which form a layer's weights are kept.
struct WeightShape {
  int32_t out_channels, offsets, in_channels;
  ElementType precision;
};

/// Weights as the kernels read them.
struct WeightsView {
  Product product = Product::kTensorInt8;
  int32_t padded = 0;  // output channels that are computed
  int32_t in_channels = 0;
  int32_t in_bytes = 0;      // of an input row
  int32_t units = 0;         // of K, see KOrder
  bool hopper = false;       // packed for wgmma
  int64_t packed_bytes = 0;  // of `packed`
  char* packed = nullptr;
  float *scale = nullptr, *bias = nullptr;  // [padded]
};

/// The form of a layer's weights; addresses are filled in by whoever has the memory.
WeightsView weights_view(const WeightShape& shape, const DeviceLimits& limits);

/// A layer's weights on the device as it is given: float32, of any values.
struct RawWeights {
  const float* weight;  // [out, offsets, in]
  const float* bias;    // [out] or null
  float input_amax;
  const float* weight_amax;  // [out], int8 only
  int32_t* beyond;           // two counts, of weights and biases that float16 does not have; null: checked
};

/// Rounds, quantises and packs.
void pack_weights(const WeightShape& shape, const RawWeights& from, const WeightsView& to,
                  cudaStream_t stream);

/// Weights that an engine keeps.
struct DeviceWeights {
  WeightsView view;
  DeviceArray<char> packed;
  DeviceArray<float> scale, bias;
  int64_t bytes() const { return packed.bytes() + scale.bytes() + bias.bytes(); }
};

/// Prepares a layer. Throws as check_weights() does.
DeviceWeights device_weights(const LayerWeights& source, const DeviceLimits& limits);

/// Runs a layer over all tiles of its map. `x` are rows of weights.in_bytes bytes. `after_maps`: the kernels
/// that make the map, or other maps that the layers behind this one read, may not have ended when this one
/// starts. Weights must have been there before the kernel right before this one started.
void convolve(const MapView& map, const void* x, const WeightsView& weights, FinishView finish,
              bool after_maps, const DeviceLimits& limits, cudaStream_t stream);

}  // namespace scn::cuda
