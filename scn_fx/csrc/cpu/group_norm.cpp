// SPDX-License-Identifier: Apache-2.0
#include "cpu/group_norm.h"

#include <cmath>

#include "cpu/rows_at_hand.h"

namespace scn {

Overflow run_group_norm(const Kernels& kernels, const GroupNorm& norm, const FeatureRows& x, int64_t rows,
                        const Finish& finish, ThreadPool& pool) {
  const int32_t count = norm.channels / norm.groups;
  const auto make = [&](int64_t row, const FloatRows& input, float* out) {
    const float* const in = input.row(x, row);
    for (int32_t first = 0; first < norm.channels; first += count) {
      double sum = 0.0, squares = 0.0;
      for (int32_t c = first; c < first + count; ++c) sum += double(in[c]);
      const double mean = sum / count;
      for (int32_t c = first; c < first + count; ++c) {
        const double centred = double(in[c]) - mean;
        squares += centred * centred;
      }
      const double deviation = std::sqrt(squares / count + double(norm.epsilon));
      for (int32_t c = first; c < first + count; ++c) {
        const double normal = (double(in[c]) - mean) / deviation;
        out[c] = float(normal * double(norm.scale[c]) + double(norm.shift[c]));
      }
    }
  };
  return finish_made_rows(kernels, norm.channels, rows, finish, pool, make);
}

}  // namespace scn
