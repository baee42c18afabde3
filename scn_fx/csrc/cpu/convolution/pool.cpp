// SPDX-License-Identifier: Apache-2.0
#include "cpu/convolution/pool.h"

#include <algorithm>

#include "cpu/convolution/overflow_count.h"

namespace scn {
namespace {

constexpr int64_t kRowsPerChunk = 512, kRowsAtHand = 16;

/// The larger one; NaN if one of them is.
float larger(float a, float b) { return b <= a || a != a ? a : b; }

/// Calls visit(input row) for the neighbours of an output row, offsets ascending.
template <typename Visit>
void for_each_input(const MapView& map, int64_t row, const Visit& visit) {
  const int32_t* input = map.inputs + map.first[row];
  for (int32_t w = 0; w < map.mask_words; ++w) {
    for (int left = __builtin_popcountll(map.masks[row * map.mask_words + w]); left; --left) visit(*input++);
  }
}

}  // namespace

Size pool_scratch(int32_t channels) { return Size(kRowsAtHand + 1) * channels * sizeof(float); }

Overflow run_pool(const Kernels& kernels, Pooling kind, const FeatureRows& x, int32_t channels,
                  const MapView& map, int64_t rows, Finish finish, ThreadPool& pool) {
  finish.stride = channels;
  finish.channels = channels;
  OverflowCount lost;
  pool.reserve_scratch(pool_scratch(channels).value());
  pool.for_each(rows, kRowsPerChunk, [&](int64_t chunk_begin, int64_t chunk_end, int thread) {
    float* const pooled = static_cast<float*>(pool.scratch(thread));
    float* const converted = pooled + kRowsAtHand * channels;
    const auto row_of = [&](int32_t input) -> const float* {
      if (!x.half) return static_cast<const float*>(x.data) + input * x.stride;
      kernels.half_to_float(static_cast<const uint16_t*>(x.data) + input * x.stride, converted, channels);
      return converted;
    };
    Finish f = finish;
    f.float_sums = pooled;
    for (int64_t begin = chunk_begin; begin < chunk_end; begin += kRowsAtHand) {
      const int64_t end = std::min(chunk_end, begin + kRowsAtHand);
      for (int64_t row = begin; row < end; ++row) {
        float* const out = pooled + (row - begin) * channels;
        int32_t count = 0;
        for_each_input(map, row, [&](int32_t input) {
          const float* const in = row_of(input);
          if (count++ == 0) {
            // a sum begins at +0
            for (int32_t c = 0; c < channels; ++c) out[c] = kind == Pooling::kMax ? in[c] : 0.0f + in[c];
          } else if (kind == Pooling::kMax) {
            for (int32_t c = 0; c < channels; ++c) out[c] = larger(out[c], in[c]);
          } else {
            for (int32_t c = 0; c < channels; ++c) out[c] += in[c];
          }
        });
        if (count == 0) std::fill(out, out + channels, 0.0f);
        if (kind == Pooling::kMean && count > 1) {
          for (int32_t c = 0; c < channels; ++c) out[c] /= float(count);
        }
      }
      lost.add(kernels.finish(f, begin, end));
    }
  });
  return lost.total();
}

}  // namespace scn
