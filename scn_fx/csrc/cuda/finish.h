// SPDX-License-Identifier: Apache-2.0
// What follows a step's sums, as kernels see it; plain structs passed by value.
#pragma once

#include <cstdint>

namespace scn::cuda {

enum class Form : int32_t { kInt8, kHalf, kFloat };
enum class Operand : int32_t { kNone, kInt8, kHalf, kFloat };

inline int32_t form_bytes(Form form) { return form == Form::kInt8 ? 1 : form == Form::kHalf ? 2 : 4; }

/// One stored form of a result: rows, or the cells of a dense map.
struct EmissionView {
  Form form;
  bool relu, through_half;
  bool dense;             // out is [batch, columns, cells] instead of rows
  float factor;           // int8: 127 / amax
  int32_t columns;        // of a row, zero beyond the result's channels; dense: channels
  int32_t stride;         // bytes from row to row
  int32_t cells;          // dense: height * width, times its depth
  int32_t height, width;  // dense: cells along y and x
  void* out;
};

/// The Add fused behind a result ("self").
struct ResidualView {
  Operand kind;
  bool through_half, self_is_second;
  float self_factor, self_scale, other_scale;  // int8: 127 / amax, amax / 127 of self; amax / 127 of other
  int32_t stride;                              // bytes from row to row
  const void* other;
};

constexpr int kMaxEmissions = 6;

struct FinishView {
  const float* scale;  // [padded channels], int8 products only
  const float* bias;   // [padded channels]
  bool relu, through_half;
  int32_t channels;  // real ones
  int32_t emission_count;
  ResidualView residual;
  EmissionView emissions[kMaxEmissions];
  int32_t* overflow;  // two entries: lost before the Add, lost when stored
};

/// Channels in memory: rows are 16, 32, 64 or a multiple of 128 bytes, with zeros behind the last channel.
inline int32_t row_bytes(int32_t channels, int32_t element) {
  const int32_t bytes = channels * element;
  if (bytes > 64) return (bytes + 127) / 128 * 128;
  return bytes <= 16 ? 16 : bytes <= 32 ? 32 : 64;
}

}  // namespace scn::cuda
