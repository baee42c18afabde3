// SPDX-License-Identifier: Apache-2.0
// What tensor-core convolutions are given, and the order in which they take the products.
//
// K is taken unit by unit: what one lane fetches of an input row at once. A unit is 64 bytes of a row at one
// offset (wide rows: all offsets of the first 64 bytes, then of the next), a row of 32 bytes at one offset, or
// rows of 16 bytes at two offsets. Within a unit, lane q of the four that share a row fetches neighbouring bytes
// and multiplies them as the columns of K that the instruction gives it: the order of K means nothing to a sum, so
// weights are packed in whatever order that is (KOrder). Columns are ordered likewise: a lane's columns of
// the sums are neighbouring channels, so that it stores them whole (channel_of_column).
#pragma once

#include <algorithm>

#include "cuda/convolution.h"

namespace scn::cuda {

/// Output channels that a block computes.
constexpr int32_t kLargestBlock = 64;

SCN_FX_BOTH constexpr int32_t slab_of(int32_t row_bytes) { return row_bytes < 64 ? row_bytes : 64; }
/// 32-byte steps of K in a unit.
SCN_FX_BOTH constexpr int32_t steps_of(int32_t slab) { return slab == 64 ? 2 : 1; }

/// Which byte of which offset's row is what in K.
struct KOrder {
  int32_t volume, row_bytes;
  int32_t slab() const { return slab_of(row_bytes); }
  int32_t steps() const { return steps_of(slab()); }
  int32_t units() const { return row_bytes == 16 ? (volume + 1) / 2 : volume * (row_bytes / slab()); }
  /// Units for kernels that take `depth` of them together.
  int32_t units(int32_t depth) const { return (units() + depth - 1) / depth * depth; }

  struct Source {
    int32_t offset, byte;  // offset >= volume: none
  };
  /// Byte `at` (0 to 31) of a step of a unit.
  Source source(int32_t unit, int32_t step, int32_t at) const {
    const int32_t lane = at % 16 / 4, byte = at / 16 * 4 + at % 4;  // in what the lane fetches for this step
    if (slab() == 16) return {2 * unit + lane / 2, lane % 2 * 8 + byte};
    if (slab() == 32) return {unit, lane * 8 + byte};
    return {unit < units() ? unit % volume : volume, unit / volume * 64 + lane * 16 + step * 8 + byte};
  }
};

/// Channel of a column of the sums, both from the start of a block of `block` channels.
inline int32_t channel_of_column(int32_t column, int32_t block) {
  return column % 8 / 2 * (block / 4) + column / 8 * 2 + column % 2;
}

struct TensorParams {
  MapView map;
  const char* x;
  int32_t x_stride;      // bytes
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
constexpr int32_t hopper_depth(int32_t slab, int32_t units, int32_t block) {
  return slab == 16 ? 5 : slab == 64 && units % 6 == 0 && block == kLargestBlock ? 6 : 3;
}
/// Weights must be packed for wgmma, padded to whole groups of hopper_depth() units.
void launch_hopper_int8(const TensorParams& params, int32_t padded, const DeviceLimits& limits,
                        cudaStream_t stream);
void launch_hopper_half(const TensorParams& params, int32_t padded, const DeviceLimits& limits,
                        cudaStream_t stream);
/// Whether such a layer fits into shared memory there.
bool suits_hopper(int32_t padded, const KOrder& order, const DeviceLimits& limits);

}  // namespace scn::cuda
