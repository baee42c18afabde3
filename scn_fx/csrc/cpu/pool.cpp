// SPDX-License-Identifier: Apache-2.0
#include "cpu/pool.h"

#include <algorithm>

#include "cpu/rows_at_hand.h"

namespace scn {
namespace {

/// Calls visit(input row) for the neighbours of an output row, offsets ascending.
template <typename Visit>
void for_each_input(const MapView& map, int64_t row, const Visit& visit) {
  const int32_t* input = map.inputs + map.first[row];
  for (int32_t w = 0; w < map.mask_words; ++w) {
    for (int left = __builtin_popcountll(map.masks[row * map.mask_words + w]); left; --left) visit(*input++);
  }
}

}  // namespace

Overflow run_pool(const Kernels& kernels, Pooling kind, const std::vector<PooledRows>& inputs,
                  int32_t channels, int64_t rows, const Finish& finish, ThreadPool& pool) {
  const auto make = [&](int64_t row, const FloatRows& input, float* out) {
    int32_t count = 0;
    const auto take = [&](const float* in) {
      if (count++ == 0) {
        // a sum begins at +0
        for (int32_t c = 0; c < channels; ++c) out[c] = kind == Pooling::kMax ? in[c] : 0.0f + in[c];
      } else if (kind == Pooling::kMax) {
        for (int32_t c = 0; c < channels; ++c) out[c] = larger(out[c], in[c]);
      } else {
        for (int32_t c = 0; c < channels; ++c) out[c] += in[c];
      }
    };
    for (const PooledRows& x : inputs) {
      for_each_input(x.map, row, [&](int32_t index) { take(input.row(x.rows, index)); });
    }
    if (count == 0) std::fill(out, out + channels, 0.0f);
    if (kind == Pooling::kMean && count > 1) {
      for (int32_t c = 0; c < channels; ++c) out[c] /= float(count);
    }
  };
  return finish_made_rows(kernels, channels, rows, finish, pool, make);
}

}  // namespace scn
