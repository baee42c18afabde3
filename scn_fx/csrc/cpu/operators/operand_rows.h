// SPDX-License-Identifier: Apache-2.0
// Operands of single operators in the forms that kernels read, and the forms of their results.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "core/parallel.h"
#include "core/sizes.h"
#include "cpu/convolution/convolution.h"
#include "cpu/kernels/kernels.h"

namespace scn {

/// Rows of a result at `out`, `stride` elements apart, all of which are written.
StoreView store(ElementType type, void* out, int64_t stride, bool rounds, float factor = 0.0f);

/// Throws for values that do not fit in float16.
void fail_if_lost(const Overflow& lost, const std::string& layer);

/// Rows of floats as a source.
Finish float_rows(const float* rows, int32_t channels);

struct Int8Rows {
  std::unique_ptr<int8_t[]> data;  // int8_row(channels) apart
  bool nonnegative;                // then the faster kernels for such features serve
};

inline Size int8_bytes(int64_t rows, int32_t channels) { return Size(rows) * int8_row(channels); }
/// Scratch of a thread for quantise_rows().
Size bytes_at_hand(int32_t channels);

/// q(x, amax) of float rows. int8 has neither NaN nor infinity: they are looked for in the copy of a few rows
/// that is quantised, not in the caller's memory.
Int8Rows quantise_rows(const Kernels& kernels, const float* x, int64_t rows, int32_t channels, float amax,
                       const std::string& what, ThreadPool& pool);

}  // namespace scn
