// SPDX-License-Identifier: Apache-2.0
// Weights in the order in which the kernels read them: rounded, quantised and packed on the device, one
// element a thread.
#include <algorithm>
#include <cstdlib>
#include <string>

#include "cuda/convolution/finish.cuh"
#include "cuda/convolution/tensor_params.h"
#include "cuda/runtime/launch.h"

namespace scn::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMostBlocks = 1 << 16;

/// Output channels that the kernels compute: every stored form of the result fits (see row_bytes).
int32_t padded_channels(int32_t channels) {
  if (channels > 64) return (channels + 127) / 128 * 128;
  return channels <= 16 ? 16 : channels <= 32 ? 32 : 64;
}

/// Which weight an element of the packed ones is; beyond the real channels and offsets: none.
struct Origin {
  int32_t channel, offset, in_channel;
};

/// Takes the last index of a packed array off `at`.
__device__ __forceinline__ int32_t take_index(int64_t& at, int32_t extent) {
  const int64_t rest = at / extent;
  const int32_t index = int32_t(at - rest * extent);
  at = rest;
  return index;
}

/// The order in which the lanes of mma.sync read weights, output channels as its rows: [block of channels,
/// unit, step, 16 channels, lane, word, element].
template <typename Element>
struct Fragments {
  KOrder order;
  int32_t block, units;

  __device__ __forceinline__ Origin origin(int64_t at) const {
    constexpr int32_t kSize = int32_t(sizeof(Element));
    const int32_t byte = take_index(at, 4 / kSize) * kSize;
    const int32_t word = take_index(at, 4);  // two halves of K x two halves of the rows
    const int32_t lane = take_index(at, 32);
    const int32_t n16 = take_index(at, block / 16) * 16;
    const int32_t step = take_index(at, order.steps());
    const int32_t unit = take_index(at, units), n0 = int32_t(at) * block;
    const KOrder::Source from = order.source(unit, step, lane % 4, word / 2 * 4 + byte);
    return {n0 + channel_of_row(n16 + word % 2 * 8 + lane / 4, block), from.offset, from.byte / kSize};
  }
};

/// The order in which wgmma reads weights from shared memory: blocks of 8 columns x 16 bytes, the two halves
/// of a 32-byte step side by side, then the next columns, then the next step; units are padded to whole
/// blocks: [block of channels, unit, step, 8 columns, half, column, element].
template <typename Element>
struct Blocks {
  KOrder order;
  int32_t block, units;

  __device__ __forceinline__ Origin origin(int64_t at) const {
    constexpr int32_t kSize = int32_t(sizeof(Element));
    const int32_t byte = take_index(at, 16 / kSize) * kSize;
    const int32_t in_eight = take_index(at, 8), half = take_index(at, 2);
    const int32_t column = take_index(at, block / 8) * 8 + in_eight;
    const int32_t step = take_index(at, order.steps());
    const int32_t unit = take_index(at, units), n0 = int32_t(at) * block;
    const KOrder::Source from = order.source(unit, step, byte / 4, half * 4 + byte % 4);
    return {n0 + channel_of_column(column, block), from.offset, from.byte / kSize};
  }
};

/// [offset, in channel, padded], as chains of sums read them.
struct Rows {
  int32_t in_channels, padded;

  __device__ __forceinline__ Origin origin(int64_t at) const {
    const int32_t channel = take_index(at, padded), in_channel = take_index(at, in_channels);
    return {channel, int32_t(at), in_channel};
  }
};

__device__ __forceinline__ float rounded(float v) { return __half2float(__float2half_rn(v)); }

/// A real weight as an element; the same float32 operations as on the CPU (quantise_weight).
__device__ __forceinline__ void convert(float v, float amax, bool, int8_t* to) {
  *to = int8_t(quantised(__fmul_rn(rounded(v), int8_factor(amax))));
}
__device__ __forceinline__ void convert(float v, float, bool, __half* to) { *to = __float2half_rn(v); }
__device__ __forceinline__ void convert(float v, float, bool half, float* to) { *to = half ? rounded(v) : v; }

template <typename Element, typename Order>
__global__ void pack_kernel(const Order order, const WeightShape shape, const RawWeights from, int64_t count,
                            Element* packed) {
  int32_t beyond = 0;
  for (int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x; i < count;
       i += int64_t(gridDim.x) * kThreads) {
    const Origin o = order.origin(i);
    Element element = Element(0.0f);
    if (o.channel < shape.out_channels && o.offset < shape.offsets && o.in_channel < shape.in_channels) {
      const int64_t at = (int64_t(o.channel) * shape.offsets + o.offset) * shape.in_channels + o.in_channel;
      const float amax = sizeof(Element) == 1 ? from.weight_amax[o.channel] : 0.0f;
      const float v = from.weight[at];
      beyond += !(fabsf(v) < kHalfOverflow);
      convert(v, amax, shape.precision == ElementType::kFloat16, &element);
    }
    packed[i] = element;
  }
  if (beyond && from.beyond) atomicAdd(&from.beyond[0], beyond);
}

__global__ void finish_kernel(const WeightShape shape, const RawWeights from, int32_t padded, float* scale,
                              float* bias) {
  for (int32_t n = threadIdx.x; n < padded; n += kThreads) {
    const bool real = n < shape.out_channels;
    float b = real && from.bias ? from.bias[n] : 0.0f;
    if (shape.precision != ElementType::kFloat32) {
      if (from.beyond && !(fabsf(b) < kHalfOverflow)) atomicAdd(&from.beyond[1], 1);
      b = rounded(b);
    }
    bias[n] = b;
    scale[n] = 0.0f;
    if (real && shape.precision == ElementType::kInt8)
      scale[n] = product_scale(from.input_amax, from.weight_amax[n]);
  }
}

template <typename Element, typename Order>
void launch_pack(const Order& order, const WeightShape& shape, const RawWeights& from, const WeightsView& to,
                 cudaStream_t stream) {
  const int64_t count = to.packed_bytes / int64_t(sizeof(Element));
  pack_kernel<Element><<<blocks_for(count, kThreads, kMostBlocks), kThreads, 0, stream>>>(
      order, shape, from, count, reinterpret_cast<Element*>(to.packed));
  check_launch("packing weights");
}

/// Blocks of output channels, and units as they are padded for the kernels.
int32_t channel_block(const WeightsView& w) {
  return w.hopper ? kLargestBlock : std::min(w.padded, kLargestBlock);
}
int32_t padded_units(const WeightsView& w, const KOrder& order) {
  if (w.hopper) return order.units(hopper_block(order.units()));
  return order.units(tensor_block(channel_block(w), unit_parts(order.row_bytes)));
}

template <typename Element>
void pack_tensor(const WeightShape& shape, const RawWeights& from, const WeightsView& to,
                 cudaStream_t stream) {
  const KOrder order{shape.offsets, to.in_bytes};
  const int32_t block = channel_block(to), units = padded_units(to, order);
  if (to.hopper) {
    launch_pack<Element>(Blocks<Element>{order, block, units}, shape, from, to, stream);
  } else {
    launch_pack<Element>(Fragments<Element>{order, block, units}, shape, from, to, stream);
  }
}

/// What the environment variable SCN_FX_CUDA_KERNELS says: the kernels of other GPUs also run on Hopper, for
/// tests.
bool generic_kernels_wanted() {
  const char* const text = std::getenv("SCN_FX_CUDA_KERNELS");
  const std::string kernels = text ? text : "";
  if (!kernels.empty() && kernels != "best" && kernels != "generic") {
    fail(ErrorKind::kArgument, "SCN_FX_CUDA_KERNELS must be 'best' or 'generic', got '", kernels, "'.");
  }
  return kernels == "generic";
}

/// Whether this build has kernels for Hopper, and they are to be used on this device.
bool runs_hopper(const DeviceLimits& limits) {
  return kHopperBuilt && limits.architecture == 90 && !generic_kernels_wanted();
}

}  // namespace

bool suits_hopper(int32_t padded, const KOrder& order, const DeviceLimits& limits) {
  if (padded < kLargestBlock) return false;
  const int32_t units_of_block = hopper_block(order.units());
  const int64_t groups = order.units(units_of_block) / kHopperDepth;
  const int64_t group_bytes = kLargestBlock * order.unit_bytes() * kHopperDepth;
  const int64_t map_bytes = (order.volume + 4 * (kHopperBlock + 1)) * (kTileRows * 2 + 4) + 256;
  return units_of_block / kHopperDepth * group_bytes + map_bytes + groups * 16 + 1024 <= limits.shared_bytes;
}

WeightsView weights_view(const WeightShape& s, const DeviceLimits& limits) {
  const bool int8 = s.precision == ElementType::kInt8, half = s.precision == ElementType::kFloat16;
  WeightsView w;
  w.in_channels = s.in_channels;
  w.product = int8                                  ? Product::kTensorInt8
              : !half                               ? Product::kChainFloat
              : s.in_channels <= kMostChainChannels ? Product::kChainHalf
                                                    : Product::kTensorHalf;
  w.padded = padded_channels(s.out_channels);
  w.in_bytes = row_bytes(s.in_channels, int8 ? 1 : half ? 2 : 4);
  const KOrder order{s.offsets, w.in_bytes};
  w.units = order.units();
  if (int8 || w.product == Product::kTensorHalf) {
    w.hopper = runs_hopper(limits) && suits_hopper(w.padded, order, limits);
    w.packed_bytes = (Size(w.padded) * padded_units(w, order) * order.unit_bytes()).value();
  } else {
    w.packed_bytes = (Size(s.offsets) * s.in_channels * w.padded * sizeof(float)).value();
  }
  return w;
}

void pack_weights(const WeightShape& shape, const RawWeights& from, const WeightsView& to,
                  cudaStream_t stream) {
  finish_kernel<<<1, kThreads, 0, stream>>>(shape, from, to.padded, to.scale, to.bias);
  check_launch("preparing scales");
  if (to.product == Product::kTensorInt8) return pack_tensor<int8_t>(shape, from, to, stream);
  if (to.product == Product::kTensorHalf) return pack_tensor<__half>(shape, from, to, stream);
  launch_pack<float>(Rows{shape.in_channels, to.padded}, shape, from, to, stream);
}

DeviceWeights device_weights(const LayerWeights& s, const DeviceLimits& limits) {
  check_weights(s);
  const WeightShape shape{s.out_channels, s.offsets, s.in_channels, s.precision};
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
  DeviceWeights w;
  w.view = weights_view(shape, limits);
  w.packed = DeviceArray<char>(w.view.packed_bytes);
  w.scale = DeviceArray<float>(w.view.padded);
  w.bias = DeviceArray<float>(w.view.padded);
  w.view.packed = w.packed.data();
  w.view.scale = w.scale.data();
  w.view.bias = w.bias.data();
  pack_weights(shape, {weight.data(), bias.data(), s.input_amax, amax.data(), nullptr}, w.view, nullptr);
  check(cudaStreamSynchronize(nullptr), "packing weights");  // what was copied is released
  return w;
}

}  // namespace scn::cuda
