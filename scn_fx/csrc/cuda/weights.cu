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

/// Elements in the order in which the lanes of mma.sync read them, output channels as its rows. `value(n, k,
/// c)` gives a weight, zero beyond the real channels and offsets.
template <typename Element, typename Value>
std::vector<char> pack_fragments(int32_t padded, const KOrder& order, const Value& value) {
  const int32_t size = int32_t(sizeof(Element)), block = std::min(padded, kLargestBlock);
  const int32_t units = order.units(tensor_block(block, unit_parts(order.row_bytes)));
  std::vector<char> packed((Size(padded) * units * order.unit_bytes()).count());
  Element* out = reinterpret_cast<Element*>(packed.data());
  for (int32_t n0 = 0; n0 < padded; n0 += block) {
    for (int32_t unit = 0; unit < units; ++unit) {
      for (int32_t step = 0; step < order.steps(); ++step) {
        for (int32_t n16 = 0; n16 < block; n16 += 16) {
          for (int32_t lane = 0; lane < 32; ++lane) {
            for (int32_t word = 0; word < 4; ++word) {  // two halves of K x two halves of the rows
              const int32_t n = n0 + channel_of_row(n16 + word % 2 * 8 + lane / 4, block);
              for (int32_t byte = 0; byte < 4; byte += size) {
                const KOrder::Source from = order.source(unit, step, lane % 4, word / 2 * 4 + byte);
                *out++ = value(n, from.offset, from.byte / size);
              }
            }
          }
        }
      }
    }
  }
  return packed;
}

/// Elements in the order in which wgmma reads them from shared memory: blocks of 8 columns x 16 bytes, the
/// two halves of a 32-byte step side by side, then the next columns, then the next step; units are padded to
/// whole blocks.
template <typename Element, typename Value>
std::vector<char> pack_blocks(int32_t padded, const KOrder& order, const Value& value) {
  const int32_t size = int32_t(sizeof(Element)), block = kLargestBlock;
  const int32_t units = order.units(hopper_block(order.units()));
  std::vector<char> packed((Size(padded) * units * order.unit_bytes()).count());
  Element* out = reinterpret_cast<Element*>(packed.data());
  for (int32_t n0 = 0; n0 < padded; n0 += block) {
    for (int32_t unit = 0; unit < units; ++unit) {
      for (int32_t step = 0; step < order.steps(); ++step) {
        for (int32_t n8 = 0; n8 < block; n8 += 8) {
          for (int32_t half = 0; half < 2; ++half) {
            for (int32_t column = n8; column < n8 + 8; ++column) {
              for (int32_t byte = 0; byte < 16; byte += size) {
                const KOrder::Source from = order.source(unit, step, byte / 4, half * 4 + byte % 4);
                *out++ = value(n0 + channel_of_column(column, block), from.offset, from.byte / size);
              }
            }
          }
        }
      }
    }
  }
  return packed;
}

}  // namespace

Size packed_weight_bytes(int32_t out_channels, int32_t offsets, int32_t in_channels) {
  // float32 takes most; a few more units of offsets are padded to whole blocks
  return Size(padded_channels(out_channels)) * (Size(offsets) + 64) * row_bytes(in_channels, 4);
}

bool suits_hopper(int32_t padded, const KOrder& order, const DeviceLimits& limits) {
  if (padded < kLargestBlock) return false;
  const int32_t units_of_block = hopper_block(order.units());
  const int64_t groups = order.units(units_of_block) / kHopperDepth;
  const int64_t group_bytes = kLargestBlock * order.unit_bytes() * kHopperDepth;
  const int64_t map_bytes = (order.volume + 4 * (kHopperBlock + 1)) * (kTileRows * 2 + 4) + 256;
  return units_of_block / kHopperDepth * group_bytes + map_bytes + groups * 16 + 1024 <= limits.shared_bytes;
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
  w.hopper =
      limits.hopper && (int8 || w.product == Product::kTensorHalf) && suits_hopper(w.padded, order, limits);
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
    std::vector<char> packed((Size(s.offsets) * s.in_channels * w.padded * sizeof(float)).count());
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
