// SPDX-License-Identifier: Apache-2.0
// The order in which tensor-core convolutions take the products.
//
// K is taken unit by unit. A unit is 64 bytes of it, whole rows of 16 bytes at four offsets, of 32 at two or
// of 64 at one; or 128 bytes of a wider row at one offset (all offsets of the first 128 bytes, then of the
// next). Of each 64 bytes, every one of the four lanes that share an output row fetches 16 neighbouring ones
// at once, and multiplies them as the columns of K that the instruction gives it: the order of K means
// nothing to a sum, so weights are packed in whatever order that is (KOrder). So are output channels
// (channel_of_column, channel_of_row).
#pragma once

#include <cstdint>

#include "core/both.h"

namespace scn::cuda {

/// Output channels that a block computes.
constexpr int32_t kLargestBlock = 64;

constexpr int32_t kLaneBytes = 16, kPartBytes = 64;
constexpr int32_t kPartSteps = 2;  // a step is what one instruction takes: 32 bytes of K

/// Offsets of a unit, for rows of `row_bytes`.
SCN_FX_BOTH constexpr int32_t unit_offsets(int32_t row_bytes) {
  return row_bytes < kPartBytes ? kPartBytes / row_bytes : 1;
}
/// Parts of 64 bytes in a unit.
SCN_FX_BOTH constexpr int32_t unit_parts(int32_t row_bytes) { return row_bytes > kPartBytes ? 2 : 1; }

/// Which byte of which offset's row is what in K.
struct KOrder {
  int32_t volume, row_bytes;
  SCN_FX_BOTH int32_t unit_bytes() const { return unit_parts(row_bytes) * kPartBytes; }
  SCN_FX_BOTH int32_t steps() const { return unit_parts(row_bytes) * kPartSteps; }  // of a unit
  SCN_FX_BOTH int32_t units() const {
    const int32_t offsets = unit_offsets(row_bytes);
    return offsets > 1 ? (volume + offsets - 1) / offsets : volume * (row_bytes / unit_bytes());
  }
  /// Units for kernels that take `depth` of them together.
  SCN_FX_BOTH int32_t units(int32_t depth) const { return (units() + depth - 1) / depth * depth; }

  struct Source {
    int32_t offset, byte;  // offset >= volume: none
  };
  /// Byte `at` of what lane `lane` of four multiplies in a step of a unit: 0 to 3 in the step's first half, 4
  /// to 7 in its second.
  SCN_FX_BOTH Source source(int32_t unit, int32_t step, int32_t lane, int32_t at) const {
    const int32_t byte = step % kPartSteps * 8 + at;                       // of what the lane fetches
    const int32_t offsets = unit_offsets(row_bytes), lanes = 4 / offsets;  // of a row
    if (offsets > 1) return {unit * offsets + lane / lanes, lane % lanes * kLaneBytes + byte};
    return {unit < units() ? unit % volume : volume,
            unit / volume * unit_bytes() + step / kPartSteps * kPartBytes + lane * kLaneBytes + byte};
  }
};

/// Channel of a column of wgmma's sums, both from the start of a block of `block` channels: a lane's columns
/// are neighbouring channels, so that it stores them whole.
SCN_FX_BOTH inline int32_t channel_of_column(int32_t column, int32_t block) {
  return column % 8 / 2 * (block / 4) + column / 8 * 2 + column % 2;
}
/// The same for a row of mma.sync's sums, where channels are rows.
SCN_FX_BOTH inline int32_t channel_of_row(int32_t row, int32_t block) {
  return row % 8 * (block / 8) + row / 16 * 2 + row / 8 % 2;
}

}  // namespace scn::cuda
