// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <cstring>

#include "cuda/tensor_params.h"
#include "half.h"

namespace scn::cuda {
namespace {

/// Output channels that the kernels compute: every stored form of the result fits (see row_bytes).
int32_t padded_channels(int32_t channels) {
  if (channels > 64) return (channels + 127) / 128 * 128;
  return channels <= 16 ? 16 : channels <= 32 ? 32 : 64;
}

/// Calls put(n, k, c) for every element in the order of the bytes of one step of K, `element` bytes each: the
/// elements `first` to `last` of the step, for one column.
template <typename Put>
void step_elements(const KOrder& order, int32_t unit, int32_t step, int32_t column, int32_t first, int32_t last,
                   int32_t element, const Put& put) {
  for (int32_t e = first; e < last; ++e) {
    const KOrder::Source from = order.source(unit, step, e * element);
    put(column, from.offset, from.byte / element);
  }
}

/// Elements in the order in which the lanes of mma.sync read them. `value(n, k, c)` gives a weight, zero beyond the
/// real channels and offsets.
template <typename Element, typename Value>
std::vector<char> pack_fragments(int32_t padded, const KOrder& order, const Value& value) {
  const int32_t size = int32_t(sizeof(Element)), block = std::min(padded, kLargestBlock);
  const int32_t in_half = 16 / size, in_lane = 4 / size;
  std::vector<char> packed(size_t(padded) * size_t(order.units()) * kUnitBytes);
  Element* out = reinterpret_cast<Element*>(packed.data());
  const auto put = [&](int32_t n, int32_t k, int32_t c) { *out++ = value(n, k, c); };
  for (int32_t n0 = 0; n0 < padded; n0 += block) {
    for (int32_t unit = 0; unit < order.units(); ++unit) {
      for (int32_t step = 0; step < kUnitSteps; ++step) {
        for (int32_t n16 = 0; n16 < block; n16 += 16) {
          for (int32_t lane = 0; lane < 32; ++lane) {
            for (int32_t word = 0; word < 4; ++word) {  // two column halves x two halves of the 32 bytes
              const int32_t column = n16 + word / 2 * 8 + lane / 4;
              const int32_t first = word % 2 * in_half + lane % 4 * in_lane;
              step_elements(order, unit, step, n0 + channel_of_column(column, block), first, first + in_lane,
                            size, put);
            }
          }
        }
      }
    }
  }
  return packed;
}

/// Elements in the order in which wgmma reads them from shared memory: blocks of 8 columns x 16 bytes, the
/// two halves of a 32-byte step side by side, then the next columns, then the next step; units are padded to whole
/// groups.
template <typename Element, typename Value>
std::vector<char> pack_blocks(int32_t padded, const KOrder& order, const Value& value) {
  const int32_t size = int32_t(sizeof(Element)), block = std::min(padded, kLargestBlock);
  const int32_t units = order.units(hopper_depth(order.units(), block)), in_half = 16 / size;
  std::vector<char> packed(size_t(padded) * size_t(units) * kUnitBytes);
  Element* out = reinterpret_cast<Element*>(packed.data());
  const auto put = [&](int32_t n, int32_t k, int32_t c) { *out++ = value(n, k, c); };
  for (int32_t n0 = 0; n0 < padded; n0 += block) {
    for (int32_t unit = 0; unit < units; ++unit) {
      for (int32_t step = 0; step < kUnitSteps; ++step) {
        for (int32_t n8 = 0; n8 < block; n8 += 8) {
          for (int32_t half = 0; half < 2; ++half) {
            for (int32_t column = n8; column < n8 + 8; ++column)
              step_elements(order, unit, step, n0 + channel_of_column(column, block), half * in_half,
                            (half + 1) * in_half, size, put);
          }
        }
      }
    }
  }
  return packed;
}

}  // namespace

bool suits_hopper(int32_t padded, const KOrder& order, const DeviceLimits& limits) {
  const int32_t block = std::min(padded, kLargestBlock), depth = hopper_depth(order.units(), block);
  const int64_t groups = order.units(depth) / depth, group_bytes = int64_t(block) * kUnitBytes * depth;
  const int64_t slots = block < kLargestBlock ? groups : std::min<int64_t>(groups, 2);
  const int64_t map_bytes = (order.volume + 4 * (depth + 1)) * (kTileRows * 2 + 4) + 256;
  return slots * group_bytes + map_bytes + block * 8 + groups * 16 + 256 <= limits.shared_bytes;
}

DeviceWeights device_weights(const WeightSource& s, const DeviceLimits& limits) {
  // The CPU's preparation checks ranges and sizes, and defines scales and rounding.
  const PreparedWeights prepared = prepare_weights(s);
  const bool int8 = s.precision == Precision::kInt8, half = s.precision == Precision::kFloat16;
  DeviceWeights w;
  w.in_channels = s.in_channels;
  w.product = int8                 ? Product::kTensorInt8
              : !half              ? Product::kChainFloat
              : s.in_channels <= 8 ? Product::kChainHalf
                                   : Product::kTensorHalf;
  w.padded = padded_channels(s.out_channels);
  w.in_bytes = row_bytes(s.in_channels, int8 ? 1 : half ? 2 : 4);
  std::vector<float> scale(size_t(w.padded), 0.0f), bias(size_t(w.padded), 0.0f);
  for (int32_t n = 0; n < s.out_channels; ++n) {
    bias[size_t(n)] = prepared.bias[size_t(n)];
    if (int8) scale[size_t(n)] = prepared.scale[size_t(n)];
  }
  const auto source = [&](int32_t n, int32_t k, int32_t c) {
    return s.weight[(int64_t(n) * s.offsets + k) * s.in_channels + c];
  };
  const auto real = [&](int32_t n, int32_t k, int32_t c) {
    return n < s.out_channels && k < s.offsets && c < s.in_channels;
  };
  const KOrder order{s.offsets, w.in_bytes};
  w.units = order.units();
  w.hopper = limits.hopper && (int8 || w.product == Product::kTensorHalf) && suits_hopper(w.padded, order, limits);
  if (int8) {
    std::vector<float> factor;
    for (int32_t n = 0; n < s.out_channels; ++n) factor.push_back(127.0f / s.weight_amax[n]);
    const auto value = [&](int32_t n, int32_t k, int32_t c) {
      if (!real(n, k, c)) return int8_t(0);
      return quantise_weight(half_to_float(float_to_half(source(n, k, c))), factor[size_t(n)]);
    };
    w.packed = to_device(w.hopper ? pack_blocks<int8_t>(w.padded, order, value)
                                  : pack_fragments<int8_t>(w.padded, order, value));
  } else if (w.product == Product::kTensorHalf) {
    const auto value = [&](int32_t n, int32_t k, int32_t c) {
      return real(n, k, c) ? float_to_half(source(n, k, c)) : uint16_t(0);
    };
    w.packed = to_device(w.hopper ? pack_blocks<uint16_t>(w.padded, order, value)
                                  : pack_fragments<uint16_t>(w.padded, order, value));
  } else {  // [offset, in channel, padded]
    std::vector<char> packed(size_t(s.offsets) * size_t(s.in_channels) * size_t(w.padded) * 4);
    float* out = reinterpret_cast<float*>(packed.data());
    for (int32_t k = 0; k < s.offsets; ++k) {
      for (int32_t c = 0; c < s.in_channels; ++c) {
        for (int32_t n = 0; n < w.padded; ++n) {
          const float v = real(n, k, c) ? source(n, k, c) : 0.0f;
          *out++ = half ? half_to_float(float_to_half(v)) : v;
        }
      }
    }
    w.packed = to_device(packed);
  }
  w.scale = to_device(scale);
  w.bias = to_device(bias);
  return w;
}

}  // namespace scn::cuda
