// SPDX-License-Identifier: Apache-2.0
// Stored rows that are worked on as float32, a few at a time, and finished.
#pragma once

#include <algorithm>

#include "core/parallel.h"
#include "core/sizes.h"
#include "cpu/convolution/convolution.h"
#include "cpu/convolution/overflow_count.h"
#include "cpu/kernels/kernels.h"

namespace scn {

/// Rows of float16 or float32, read as float32.
class FloatRows {
 public:
  /// `converted` has room for a row.
  FloatRows(const Kernels& kernels, int32_t channels, float* converted)
      : kernels_(kernels), channels_(channels), converted_(converted) {}

  /// Valid until the next call.
  const float* row(const FeatureRows& rows, int64_t index) const {
    if (!rows.half) return static_cast<const float*>(rows.data) + index * rows.stride;
    kernels_.half_to_float(static_cast<const uint16_t*>(rows.data) + index * rows.stride, converted_,
                           channels_);
    return converted_;
  }

 private:
  const Kernels& kernels_;
  int32_t channels_;
  float* converted_;
};

constexpr int64_t kRowsAtHand = 16;

/// Memory that one thread of finish_made_rows takes, in bytes.
inline Size made_row_scratch(int32_t channels) { return Size(kRowsAtHand + 1) * channels * sizeof(float); }

/// Calls make(row, reader of input rows, result of `channels` floats) for each of `rows`, and finishes what
/// it makes.
template <typename Make>
Overflow finish_made_rows(const Kernels& kernels, int32_t channels, int64_t rows, Finish finish,
                          ThreadPool& pool, const Make& make) {
  constexpr int64_t kRowsPerChunk = 512;
  finish.stride = channels;
  finish.channels = channels;
  OverflowCount lost;
  pool.reserve_scratch(made_row_scratch(channels).value());
  pool.for_each(rows, kRowsPerChunk, [&](int64_t chunk_begin, int64_t chunk_end, int thread) {
    float* const made = static_cast<float*>(pool.scratch(thread));
    const FloatRows input(kernels, channels, made + kRowsAtHand * channels);
    Finish f = finish;
    f.float_sums = made;
    for (int64_t begin = chunk_begin; begin < chunk_end; begin += kRowsAtHand) {
      const int64_t end = std::min(chunk_end, begin + kRowsAtHand);
      for (int64_t row = begin; row < end; ++row) make(row, input, made + (row - begin) * channels);
      lost.add(kernels.finish(f, begin, end));
    }
  });
  return lost.total();
}

}  // namespace scn
