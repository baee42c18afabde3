// SPDX-License-Identifier: Apache-2.0
// A kernel map as kernels read it. Plain pointers: files compiled for newer processors include this.
#pragma once

#include <cstdint>

namespace scn {

/// For each output row: which offsets have a neighbour, and the input rows of those that have one.
struct MapView {
  const uint64_t* masks = nullptr;  // [rows, mask_words]: bit k % 64 of word k / 64 is offset k
  const int64_t* first = nullptr;   // [rows]: where a row's neighbours begin in `inputs`
  const int32_t* inputs = nullptr;  // by row, then by ascending offset; kMapPadding more may be read
  int32_t offsets = 0, mask_words = 0;
};
constexpr int32_t kMapPadding = 16;

}  // namespace scn
