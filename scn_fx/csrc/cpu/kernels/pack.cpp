// SPDX-License-Identifier: Apache-2.0
// Weights in the order in which the kernels read them.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "cpu/kernels/kernels.h"

namespace scn {
namespace {

int32_t round_up(int32_t n, int32_t multiple) { return (n + multiple - 1) / multiple * multiple; }

}  // namespace

int64_t gemm_scratch_bytes(int64_t tile_rows, int32_t offsets, int32_t in_channels) {
  const int64_t widened = kRun * kAccRows * (in_channels + kHalfPadding) * int64_t(sizeof(float));
  const int64_t lists = tile_list_bytes(tile_rows, offsets) + widened + 64;
  const int64_t depth = int64_t(offsets) * in_channels;
  if (depth > kMostPanelDepth) return lists;
  // 32 rows in steps of 64 bytes, a row of zeros, addresses, and lists of offsets and steps
  const int64_t steps = depth / 64 + 1;
  return std::max(lists, 32 * 64 * steps + in_channels + 12 * int64_t(offsets) + 5 * steps + 10 * 64);
}

int64_t packed_int8_bytes(int32_t out, int32_t offsets, int32_t in) {
  return int64_t(offsets) * round_up(out, kOutputBlock) * round_up(in, kInputQuad) +
         kAccRows * kOutputBlock * kInputQuad;
}

void pack_weight_int8(const int8_t* weight, int32_t out, int32_t offsets, int32_t in, int8_t* packed) {
  const int32_t padded_in = round_up(in, kInputQuad);
  std::memset(packed, 0, size_t(packed_int8_bytes(out, offsets, in)));
  for (int32_t n = 0; n < out; ++n) {
    for (int32_t k = 0; k < offsets; ++k) {
      int8_t* block = packed + (int64_t(n / kOutputBlock) * offsets + k) * kOutputBlock * padded_in;
      for (int32_t c = 0; c < in; ++c) {
        block[(c / kInputQuad * kOutputBlock + n % kOutputBlock) * kInputQuad + c % kInputQuad] =
            weight[(int64_t(n) * offsets + k) * in + c];
      }
    }
  }
}

int64_t packed_float_count(int32_t out, int32_t offsets, int32_t in) {
  return int64_t(offsets) * round_up(out, kOutputBlock) * in;
}

void pack_weight_float(const float* weight, int32_t out, int32_t offsets, int32_t in, float* packed) {
  std::fill(packed, packed + packed_float_count(out, offsets, in), 0.0f);
  for (int32_t n = 0; n < out; ++n) {
    for (int32_t k = 0; k < offsets; ++k) {
      float* block = packed + (int64_t(n / kOutputBlock) * offsets + k) * kOutputBlock * in;
      for (int32_t c = 0; c < in; ++c) {
        block[c * kOutputBlock + n % kOutputBlock] = weight[(int64_t(n) * offsets + k) * in + c];
      }
    }
  }
}

}  // namespace scn
