// SPDX-License-Identifier: Apache-2.0
// One convolution over arrays in host memory, with memory and a stream of its own.
#include "cuda/operators/host_convolution.h"

#include <cuda_runtime_api.h>

#include <vector>

#include "core/failures.h"
#include "core/geometry.h"
#include "core/sizes.h"
#include "cuda/runtime/device_guard.h"
#include "cuda/runtime/memory.h"
#include "cuda/runtime/streams.h"

namespace scn {
namespace cuda {
namespace {

/// A caller's array, read once.
template <typename T>
std::vector<T> copied(const T* values, Size count) {
  return values ? std::vector<T>(values, values + count.value()) : std::vector<T>();
}

void check_map(const std::vector<int32_t>& map, int64_t in_sites, const std::string& layer) {
  for (const int32_t entry : map) {
    if (entry < -1 || entry >= in_sites) fail_map_entry(entry, in_sites, layer);
  }
}

}  // namespace

CudaConvolutionCall device_call(int device, const ConvolutionCall& call) {
  check_sizes(call);
  CudaConvolutionCall made{};
  made.place.device = device;
  made.in_sites = call.in_sites;
  made.in_channels = call.in_channels;
  made.out_channels = call.out_channels;
  made.offsets = call.offsets;
  made.out_sites = call.out_sites;
  made.precision = call.precision;
  made.round_output = call.round_output;
  made.activation = call.activation;
  made.layer = call.layer;
  made.kernel = call.kernel;
  if (call.precision == ElementType::kInt8)
    made.input_amax = checked_range(call.input_amax, "the dynamic range of its input", call.layer);
  if (result_type(call) == ElementType::kInt8)
    made.output_amax = checked_range(call.output_amax, "the dynamic range of its result", call.layer);
  return made;
}

}  // namespace cuda

using namespace cuda;

Convolved cuda_convolve(int device, const ConvolutionCall& call) {
  CudaConvolutionCall on_device = device_call(device, call);
  const DeviceGuard guard(device);
  const CudaConvolutionSizes sizes = cuda_convolution_sizes(on_device);
  const bool int8 = call.precision == ElementType::kInt8;
  const std::vector<float> weight =
      copied(call.weight, Size(call.out_channels) * call.offsets * call.in_channels);
  const std::vector<float> bias = copied(call.bias, call.out_channels),
                           amax = copied(int8 ? call.weight_amax : nullptr, call.out_channels);
  check_weights({weight.data(), bias.empty() ? nullptr : bias.data(), int32_t(call.out_channels),
                 int32_t(call.offsets), int32_t(call.in_channels), call.precision,
                 float(on_device.input_amax), amax.data(), call.layer});
  const std::vector<int32_t> map = copied(call.map, Size(call.out_sites) * call.offsets);
  check_map(map, call.in_sites, call.layer);

  const DeviceArray<float> features =
                               to_device(copied(call.features, Size(call.in_sites) * call.in_channels)),
                           weights = to_device(weight), biases = to_device(bias), ranges = to_device(amax);
  const DeviceArray<int32_t> entries = to_device(map);
  const DeviceArray<char> scratch(sizes.scratch);
  // copies of pageable memory may go on after the call, and the stream below does not wait for them
  check(cudaStreamSynchronize(nullptr), "copying to the device");
  Convolved made{result_type(call), sizes.columns, nullptr, sizes.kernel, {}};
  const Size bytes = Size(call.out_sites) * sizes.columns * element_bytes(made.type);
  const DeviceArray<char> result(bytes.value());
  const Stream stream;
  on_device.place.stream = static_cast<cudaStream_t>(stream);
  on_device.features = features.data();
  on_device.weight = weights.data();
  on_device.bias = biases.data();
  on_device.weight_amax = ranges.data();
  on_device.map = entries.data();
  on_device.scratch = scratch.data();
  on_device.result = result.data();
  made.seconds = cuda_convolve(on_device, call.repeat);
  made.rows.reset(new char[bytes.count()]);
  check(cudaStreamSynchronize(stream), "waiting for an operator");
  if (bytes.value()) {
    check(cudaMemcpy(made.rows.get(), result.data(), bytes.count(), cudaMemcpyDeviceToHost),
          "copying a result");
  }
  return made;
}

}  // namespace scn
