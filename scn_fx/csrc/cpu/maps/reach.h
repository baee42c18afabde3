// SPDX-License-Identifier: Apache-2.0
// What a convolution connects along each axis.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "core/sizes.h"
#include "core/types.h"

namespace scn {

/// What an axis of a convolution connects. Tables where they are small; elsewhere a row is computed when it
/// is asked for, so that a large grid alone takes neither memory nor time.
struct AxisReach {
  int32_t kernel = 1, stride = 1, padding = 0, dilation = 1;
  int32_t inputs = 0, outputs = 0;  // extents
  bool transposed = false;
  std::vector<int32_t> output;  // [input coordinate, offset]: the output coordinate that it reaches, or -1
  std::vector<int32_t> input;   // [output coordinate, offset]: the input coordinate that it reads, or -1
  /// The outputs of each input coordinate as bits from the first one on; empty where 32 bits do not hold
  /// them, or without tables.
  struct Span {
    int32_t first;
    uint32_t bits;
  };
  std::vector<Span> spans;

  bool has_tables() const { return !input.empty(); }
  int32_t output_of(int32_t in, int32_t offset) const;
  int32_t input_of(int32_t out, int32_t offset) const;
};
using Reach = std::array<AxisReach, 3>;
/// Of a geometry that was checked.
Reach make_reach(const ConvGeometry& geometry);
/// Memory that its tables take, in bytes.
Size reach_bytes(const ConvGeometry& geometry);

/// Rows of a reach, for one thread: of its tables, or computed.
class ReachRows {
 public:
  explicit ReachRows(const Reach& reach);
  /// [kernel] output coordinates that an input coordinate reaches, or -1 each; valid until the next call for
  /// this axis.
  const int32_t* outputs(size_t axis, int32_t in) { return row<true>(axis, in); }
  /// [kernel] input coordinates that an output coordinate reads, or -1 each.
  const int32_t* inputs(size_t axis, int32_t out) { return row<false>(axis, out); }

 private:
  template <bool kOutputs>
  const int32_t* row(size_t axis, int32_t coordinate) {
    const AxisReach& r = reach_[axis];
    if (r.has_tables()) return (kOutputs ? r.output : r.input).data() + int64_t(coordinate) * r.kernel;
    int32_t* const row = computed_[axis].data();
    for (int32_t k = 0; k < r.kernel; ++k)
      row[k] = kOutputs ? r.output_of(coordinate, k) : r.input_of(coordinate, k);
    return row;
  }

  const Reach& reach_;
  std::vector<int32_t> computed_[3];
};

}  // namespace scn
