// SPDX-License-Identifier: Apache-2.0
// What the loops around a register-blocked kernel have in common: a block by its number of rows, and where
// rows come from.
#pragma once

#include "cpu/kernels/kernels-inl.h"

namespace scn {
namespace {

/// Calls block<1>, block<2>, … block<kMost> by number of rows.
template <typename Block, int kMost>
struct ByRows {
  template <typename... Args>
  static inline void call(int32_t rows, const Args&... args) {
    if (rows == kMost)
      Block::template run<kMost>(args...);
    else
      ByRows<Block, kMost - 1>::call(rows, args...);
  }
};
template <typename Block>
struct ByRows<Block, 0> {
  template <typename... Args>
  static inline void call(int32_t, const Args&...) {}
};

inline void fetch_lines(const void* from, size_t bytes) {
  for (size_t b = 0; b < bytes; b += 64) __builtin_prefetch(static_cast<const char*>(from) + b);
}

/// Rows of features as they are stored.
template <typename X>
struct StoredRows {
  static constexpr bool kWidened = false;
  const X* x;
  int64_t stride;
  const X* get(int32_t row, int32_t) const { return x + int64_t(row) * stride; }
  void prefetch(int32_t row, int32_t channels) const {
    fetch_lines(x + int64_t(row) * stride, channels * sizeof(X));
  }
};

/// Rows of float16 as float32, kRun * kAccRows of them at a time.
struct WidenedRows {
  static constexpr bool kWidened = true;
  const uint16_t* x;
  int64_t stride;
  int32_t channels;
  float* buffer;
  const float* get(int32_t row, int32_t place) const {
    const uint16_t* in = x + int64_t(row) * stride;
    float* const out = buffer + int64_t(place) * (channels + kHalfPadding);
    for (int32_t c = 0; c < channels; c += 16) store16(out + c, load_half(in + c));
    return out;
  }
  void prefetch(int32_t row, int32_t) const {
    fetch_lines(x + int64_t(row) * stride, channels * sizeof(uint16_t));
  }
};

/// The rows of g, widened in the scratch behind the lists of a tile.
inline WidenedRows widened_rows(const GatherGemm& g, int64_t tile_rows, void* scratch) {
  float* const buffer =
      reinterpret_cast<float*>(static_cast<char*>(scratch) + tile_list_bytes(tile_rows, g.map.offsets));
  return {static_cast<const uint16_t*>(g.x), g.x_stride, g.in_channels, buffer};
}

/// How many outputs are computed row by row, so that rows are looked up once, before the next such outputs:
/// those whose weights at one offset stay in the first-level cache. Widening rows again would cost more.
template <typename Block, typename Rows>
inline int32_t slab_outputs(const GatherGemm& g, int32_t outputs) {
  constexpr int64_t kCached = 16384;
  const int64_t bytes = int64_t(g.in_channels) * Block::kOutputs * int64_t(sizeof(typename Block::W));
  if (Rows::kWidened) return outputs;
  return (bytes < kCached ? int32_t(kCached / bytes) : 1) * Block::kOutputs;
}

}  // namespace
}  // namespace scn
