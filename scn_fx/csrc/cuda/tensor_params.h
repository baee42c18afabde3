// SPDX-License-Identifier: Apache-2.0
// What tensor-core convolutions are given, and the order in which they take the products.
//
// K is taken unit by unit: 64 bytes of it, of which each of the four lanes that share an output row fetches 16
// neighbouring ones of an input row at once. A unit is 64 bytes of a row at one offset (wide rows: all offsets of the
// first 64 bytes, then of the next), whole rows of 32 bytes at two offsets, or of 16 bytes at four. A lane multiplies
// its bytes as the columns of K that the instruction gives it: the order of K means nothing to a sum, so weights are
// packed in whatever order that is (KOrder). Columns are ordered likewise: a lane's columns of the sums are
// neighbouring channels, so that it stores them whole (channel_of_column).
#pragma once

#include <algorithm>

#include "cuda/convolution.h"

namespace scn::cuda {

/// Output channels that a block computes.
constexpr int32_t kLargestBlock = 64;

constexpr int32_t kUnitBytes = 64, kUnitSteps = 2;  // of K; a step is what one instruction takes
constexpr int32_t kLaneBytes = 16;

/// Offsets of a unit, for rows of `row_bytes`.
SCN_FX_BOTH constexpr int32_t unit_offsets(int32_t row_bytes) {
  return row_bytes < kUnitBytes ? kUnitBytes / row_bytes : 1;
}

/// Which byte of which offset's row is what in K.
struct KOrder {
  int32_t volume, row_bytes;
  int32_t units() const {
    const int32_t offsets = unit_offsets(row_bytes);
    return offsets > 1 ? (volume + offsets - 1) / offsets : volume * (row_bytes / kUnitBytes);
  }
  /// Units for kernels that take `depth` of them together.
  int32_t units(int32_t depth) const { return (units() + depth - 1) / depth * depth; }

  struct Source {
    int32_t offset, byte;  // offset >= volume: none
  };
  /// Byte `at` (0 to 31) of a step of a unit.
  Source source(int32_t unit, int32_t step, int32_t at) const {
    const int32_t lane = at % 16 / 4, byte = step * 8 + at / 16 * 4 + at % 4;  // in what the lane fetches
    const int32_t offsets = unit_offsets(row_bytes), lanes = 4 / offsets;      // of a row
    if (offsets > 1) return {unit * offsets + lane / lanes, lane % lanes * kLaneBytes + byte};
    return {unit < units() ? unit % volume : volume, unit / volume * kUnitBytes + lane * kLaneBytes + byte};
  }
};

/// Channel of a column of the sums, both from the start of a block of `block` channels.
inline int32_t channel_of_column(int32_t column, int32_t block) {
  return column % 8 / 2 * (block / 4) + column / 8 * 2 + column % 2;
}

struct TensorParams {
  MapView map;
  const char* x;         // row -1 is zero, and stands for a missing neighbour
  int32_t x_stride;      // bytes
  uint32_t zero;         // 0; but compilers do not know
  int32_t units;         // of K
  const uint4* weights;  // as packed by pack_fragments, or by pack_blocks for Hopper (weights.cpp)
  FinishView finish;
};

void launch_tensor_int8(const TensorParams& params, int32_t padded, const DeviceLimits& limits,
                        cudaStream_t stream);
void launch_tensor_half(const TensorParams& params, int32_t padded, const DeviceLimits& limits,
                        cudaStream_t stream);

#if defined(SCN_FX_HOPPER)
constexpr bool kHopperBuilt = true;
#else
constexpr bool kHopperBuilt = false;
#endif

/// Units that Hopper's kernels fetch ahead, for `units` of K and `block` columns.
constexpr int32_t hopper_depth(int32_t units, int32_t block) {
  return block < kLargestBlock ? 2 : units % 6 == 0 ? 6 : 3;
}
/// Weights must be packed for wgmma, padded to whole groups of hopper_depth() units.
void launch_hopper_int8(const TensorParams& params, int32_t padded, const DeviceLimits& limits,
                        cudaStream_t stream);
void launch_hopper_half(const TensorParams& params, int32_t padded, const DeviceLimits& limits,
                        cudaStream_t stream);
/// Whether such a layer fits into shared memory there.
bool suits_hopper(int32_t padded, const KOrder& order, const DeviceLimits& limits);

}  // namespace scn::cuda
