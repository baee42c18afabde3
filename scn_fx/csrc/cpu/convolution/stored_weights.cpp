// SPDX-License-Identifier: Apache-2.0
#include "cpu/convolution/stored_weights.h"

#include <cmath>
#include <cstring>
#include <vector>

#include "core/numerics.h"

namespace scn {
namespace {

template <typename Vector>
void write_values(const Vector& values, size_t count, ByteWriter& out) {
  out.raw(values.data(), (Size(count) * sizeof(values[0])).count());
}

template <typename Vector>
void read_values(ByteReader& in, Vector& values, size_t count) {
  const ByteSpan from = in.raw((Size(count) * sizeof(values[0])).count());
  if (count) std::memcpy(values.data(), from.data, from.size);
}

/// Packed values without what lies behind the last block.
size_t packed_count(const PreparedWeights& w) {
  return (Size(w.offsets) * w.out_padded * w.in_padded).count();
}

/// Of float16 precision, layers never see what float16 does not have.
void check_values(const float* values, size_t count, const PreparedWeights& w) {
  bool good = true;
  for (size_t i = 0; i < count; ++i) {
    good = good && (w.precision == ElementType::kFloat32 ? std::isfinite(values[i])
                                                         : std::fabs(values[i]) < kHalfOverflow);
  }
  if (!good) ByteReader::corrupt("weights that are not finite");
}

/// Sums of so many quads are what kernels can form.
void check_groups(const PreparedWeights& w) {
  const int32_t quads = w.in_padded / kInputQuad;
  for (const uint8_t group : w.groups) {
    const int32_t size = group & ~kShifted;
    const bool known = group & kShifted ? size == kShiftedGroup && !w.shifts.empty()
                                        : size == 1 || size == 2 || size == 4 || size == 8;
    if (!known || quads % size) ByteReader::corrupt("a grouping of sums that kernels do not have");
  }
}

}  // namespace

std::string stored_weights(const PreparedWeights& w) {
  ByteWriter out;
  if (w.precision == ElementType::kInt8) {
    write_values(w.int8, packed_count(w), out);
    write_values(w.groups, w.groups.size(), out);
    out.number(uint8_t(!w.shifts.empty()));
    write_values(w.shifts, w.shifts.size(), out);
  } else {
    write_values(w.floats, w.floats.size(), out);
  }
  write_values(w.bias, size_t(w.out_channels), out);
  return out.take();
}

PreparedWeights read_stored_weights(ByteSpan bytes, const LayerWeights& layer) {
  ByteReader in(bytes);
  PreparedWeights w = sized_weights(layer);
  if (w.precision == ElementType::kInt8) {
    read_values(in, w.int8, packed_count(w));
    read_values(in, w.groups, w.groups.size());
    if (!in.number<uint8_t>()) std::vector<int16_t>().swap(w.shifts);
    read_values(in, w.shifts, w.shifts.size());
    check_groups(w);
    sum_offsets(w);
  } else {
    read_values(in, w.floats, w.floats.size());
    check_values(w.floats.data(), w.floats.size(), w);
  }
  read_values(in, w.bias, size_t(w.out_channels));
  check_values(w.bias.data(), w.bias.size(), w);
  in.expect_end();
  return w;
}

}  // namespace scn
