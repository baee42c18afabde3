// SPDX-License-Identifier: Apache-2.0
// Weights in the order in which the kernels read them: rounded, quantised and packed on the device, one
// element a thread.
#include <cuda_fp16.h>

#include "cuda/convolution/k_order.h"
#include "cuda/convolution/quantise.cuh"
#include "cuda/convolution/registry.h"
#include "cuda/convolution/weights.h"
#include "cuda/runtime/launch.h"

namespace scn::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMostBlocks = 1 << 16;

struct WeightShape {
  int32_t out_channels, offsets, in_channels;
  ElementType precision;
};
WeightShape shape_of(const ConvConfig& c) {
  return {c.problem.out_channels, c.problem.offsets, c.problem.in_channels, c.problem.precision};
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
struct Columns {
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

/// The same for pairs of blocks, of which each takes half of a row: [block of channels, half of the row,
/// unit,
/// ...]. The columns are those of two blocks of half as many channels, side by side.
template <typename Element>
struct ColumnPairs {
  KOrder order;  // of half rows
  int32_t block, units;

  __device__ __forceinline__ Origin origin(int64_t at) const {
    constexpr int32_t kSize = int32_t(sizeof(Element));
    const int32_t half_block = block / 2;
    const int32_t byte = take_index(at, 16 / kSize) * kSize;
    const int32_t in_eight = take_index(at, 8), half = take_index(at, 2);
    const int32_t column = take_index(at, block / 8) * 8 + in_eight;
    const int32_t step = take_index(at, order.steps());
    const int32_t unit = take_index(at, units), row_half = take_index(at, 2), n0 = int32_t(at) * block;
    const KOrder::Source from = order.source(unit, step, byte / 4, half * 4 + byte % 4);
    return {n0 + column / half_block * half_block + channel_of_column(column % half_block, half_block),
            from.offset, (row_half * order.row_bytes + from.byte) / kSize};
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
void launch_pack(const Order& order, const ConvConfig& config, const RawWeights& from, const WeightsView& to,
                 cudaStream_t stream) {
  const int64_t count = config.packed_bytes / int64_t(sizeof(Element));
  pack_kernel<Element><<<blocks_for(count, kThreads, kMostBlocks), kThreads, 0, stream>>>(
      order, shape_of(config), from, count, reinterpret_cast<Element*>(to.packed));
  check_launch("packing weights");
}

/// float16's and int8's order of the same bytes.
template <template <typename> class Order>
void pack_units(const ConvConfig& c, const RawWeights& from, const WeightsView& to, cudaStream_t stream) {
  const KOrder order{c.problem.offsets, c.problem.in_bytes / c.cluster};
  if (c.problem.precision == ElementType::kInt8) {
    launch_pack<int8_t>(Order<int8_t>{order, c.block, c.units}, c, from, to, stream);
  } else {
    launch_pack<__half>(Order<__half>{order, c.block, c.units}, c, from, to, stream);
  }
}

}  // namespace

void pack_fragments(const ConvConfig& config, const RawWeights& from, const WeightsView& to,
                    cudaStream_t stream) {
  pack_units<Fragments>(config, from, to, stream);
}

void pack_columns(const ConvConfig& config, const RawWeights& from, const WeightsView& to,
                  cudaStream_t stream) {
  pack_units<Columns>(config, from, to, stream);
}

void pack_column_pairs(const ConvConfig& config, const RawWeights& from, const WeightsView& to,
                       cudaStream_t stream) {
  pack_units<ColumnPairs>(config, from, to, stream);
}

void pack_rows(const ConvConfig& c, const RawWeights& from, const WeightsView& to, cudaStream_t stream) {
  launch_pack<float>(Rows{c.problem.in_channels, c.padded}, c, from, to, stream);
}

void pack_weights(const ConvConfig& config, const RawWeights& from, const WeightsView& to,
                  cudaStream_t stream) {
  finish_kernel<<<1, kThreads, 0, stream>>>(shape_of(config), from, config.padded, to.scale, to.bias);
  check_launch("preparing scales");
  config.kernel->pack(config, from, to, stream);
}

}  // namespace scn::cuda
