// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <cstring>

#include "cuda/convolution.h"
#include "half.h"

namespace scn::cuda {
namespace {

/// Output channels that a tensor-core kernel computes: every stored form of the result fits (see row_bytes).
int32_t padded_channels(int32_t channels) {
  if (channels > 64) return (channels + 127) / 128 * 128;
  return channels <= 16 ? 16 : channels <= 32 ? 32 : 64;
}

int32_t column_block(int32_t padded) { return std::min(padded, 128); }

/// Elements in the order in which tensor-core lanes read them, `element` bytes each. `value(n, k, c)` gives a
/// weight, zero beyond the real channels; K runs over passes of up to 128 bytes, then offsets, then channels.
template <typename Element, typename Value>
std::vector<char> pack_fragments(int32_t padded, int32_t volume, int32_t row_bytes, const Value& value) {
  const int32_t size = int32_t(sizeof(Element));
  const int32_t block = column_block(padded), pass_bytes = std::min(row_bytes, 128);
  const int32_t passes = row_bytes / pass_bytes, per_pass = pass_bytes / size;
  const int32_t steps = (volume * pass_bytes / 16 + 1) / 2, lane_elements = 4 / size;
  std::vector<char> packed(size_t(padded) * size_t(passes) * size_t(steps) * 32);
  Element* out = reinterpret_cast<Element*>(packed.data());
  for (int32_t n0 = 0; n0 < padded; n0 += block) {
    for (int32_t pass = 0; pass < passes; ++pass) {
      for (int32_t step = 0; step < steps; ++step) {
        for (int32_t n16 = 0; n16 < block / 16; ++n16) {
          for (int32_t lane = 0; lane < 32; ++lane) {
            for (int32_t word = 0; word < 4; ++word) {  // two column halves x two halves of the 32 bytes
              const int32_t n = n0 + n16 * 16 + word / 2 * 8 + lane / 4;
              for (int32_t e = 0; e < lane_elements; ++e) {
                const int32_t in_step = word % 2 * (16 / size) + lane % 4 * lane_elements + e;
                const int32_t in_pass = step * (32 / size) + in_step;
                const int32_t k = in_pass / per_pass, c = pass * per_pass + in_pass % per_pass;
                *out++ = k < volume ? value(n, k, c) : Element(0);
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
/// two halves of a 32-byte step side by side, then the next columns, then the next step. Passes are padded to
/// whole groups of 128 bytes of K.
template <typename Element, typename Value>
std::vector<char> pack_blocks(int32_t padded, int32_t volume, int32_t row_bytes, const Value& value) {
  const int32_t size = int32_t(sizeof(Element));
  const int32_t block = column_block(padded), pass_bytes = std::min(row_bytes, 128);
  const int32_t passes = row_bytes / pass_bytes, per_pass = pass_bytes / size;
  const int32_t steps = (volume * pass_bytes + 127) / 128 * 4, in_half = 16 / size;
  std::vector<char> packed(size_t(padded) * size_t(passes) * size_t(steps) * 32);
  Element* out = reinterpret_cast<Element*>(packed.data());
  for (int32_t n0 = 0; n0 < padded; n0 += block) {
    for (int32_t pass = 0; pass < passes; ++pass) {
      for (int32_t step = 0; step < steps; ++step) {
        for (int32_t n8 = 0; n8 < block; n8 += 8) {
          for (int32_t half = 0; half < 2; ++half) {
            for (int32_t n = n0 + n8; n < n0 + n8 + 8; ++n) {
              for (int32_t e = 0; e < in_half; ++e) {
                const int32_t in_pass = (step * 2 + half) * in_half + e;
                const int32_t k = in_pass / per_pass, c = pass * per_pass + in_pass % per_pass;
                *out++ = k < volume ? value(n, k, c) : Element(0);
              }
            }
          }
        }
      }
    }
  }
  return packed;
}

/// Whether the Hopper kernels have a place for the weights of such a layer.
bool suits_hopper(int32_t padded, int32_t volume, int32_t row_bytes) {
  if (volume > 128) return false;
  if (padded > 32) return true;  // a ring of groups
  const int64_t pass_bytes = std::min(row_bytes, 128);
  const int64_t groups = (volume * pass_bytes + 127) / 128 * (row_bytes / pass_bytes);
  return groups * padded * 128 <= 72 * 1024;
}

}  // namespace

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
  const auto real = [&](int32_t n, int32_t c) { return n < s.out_channels && c < s.in_channels; };
  w.hopper = limits.hopper && (int8 || w.product == Product::kTensorHalf) &&
             suits_hopper(w.padded, s.offsets, w.in_bytes);
  if (int8) {
    std::vector<float> factor;
    for (int32_t n = 0; n < s.out_channels; ++n) factor.push_back(127.0f / s.weight_amax[n]);
    const auto value = [&](int32_t n, int32_t k, int32_t c) {
      if (!real(n, c)) return int8_t(0);
      return quantise_weight(half_to_float(float_to_half(source(n, k, c))), factor[size_t(n)]);
    };
    w.packed = to_device(w.hopper ? pack_blocks<int8_t>(w.padded, s.offsets, w.in_bytes, value)
                                  : pack_fragments<int8_t>(w.padded, s.offsets, w.in_bytes, value));
  } else if (w.product == Product::kTensorHalf) {
    const auto value = [&](int32_t n, int32_t k, int32_t c) {
      return real(n, c) ? float_to_half(source(n, k, c)) : uint16_t(0);
    };
    w.packed = to_device(w.hopper ? pack_blocks<uint16_t>(w.padded, s.offsets, w.in_bytes, value)
                                  : pack_fragments<uint16_t>(w.padded, s.offsets, w.in_bytes, value));
  } else {  // [offset, in channel, padded]
    std::vector<char> packed(size_t(s.offsets) * size_t(s.in_channels) * size_t(w.padded) * 4);
    float* out = reinterpret_cast<float*>(packed.data());
    for (int32_t k = 0; k < s.offsets; ++k) {
      for (int32_t c = 0; c < s.in_channels; ++c) {
        for (int32_t n = 0; n < w.padded; ++n) {
          const float v = real(n, c) ? source(n, k, c) : 0.0f;
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
