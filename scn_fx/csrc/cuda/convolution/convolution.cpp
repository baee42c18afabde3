// SPDX-License-Identifier: Apache-2.0
#include "cuda/convolution/convolution.h"

#include "cuda/convolution/registry.h"

namespace scn::cuda {

void convolve(const ConvConfig& config, ConvCall call, cudaStream_t stream) {
  call.finish.scale = call.weights.scale;
  call.finish.bias = call.weights.bias;
  config.kernel->launch(config, call, stream);
}

DeviceConvolution device_convolution(const ConvProblem& problem, const LayerWeights& s,
                                     const DeviceLimits& limits) {
  check_weights(s);
  DeviceConvolution c;
  c.config = choose(problem, limits, s.layer);
  prepare(c.config, limits);
  const auto copy = [](const float* values, Size count) {
    DeviceArray<float> array(values ? count.value() : 0);
    if (array.size()) {
      check(cudaMemcpy(array.data(), values, size_t(array.bytes()), cudaMemcpyHostToDevice),
            "copying weights");
    }
    return array;
  };
  const DeviceArray<float> weight = copy(s.weight, Size(s.out_channels) * s.offsets * s.in_channels),
                           bias = copy(s.bias, s.out_channels),
                           amax = copy(s.precision == ElementType::kInt8 ? s.weight_amax : nullptr,
                                       s.out_channels);
  c.packed = DeviceArray<char>(c.config.packed_bytes);
  c.scale = DeviceArray<float>(c.config.padded);
  c.bias = DeviceArray<float>(c.config.padded);
  c.weights = {c.packed.data(), c.scale.data(), c.bias.data()};
  pack_weights(c.config, {weight.data(), bias.data(), s.input_amax, amax.data(), nullptr}, c.weights,
               nullptr);
  check(cudaStreamSynchronize(nullptr), "packing weights");  // what was copied is released
  return c;
}

}  // namespace scn::cuda
