// SPDX-License-Identifier: Apache-2.0
// Geometries and sets of sites in the form that kernels see.
#pragma once

#include <climits>

#include "core/error.h"
#include "core/sizes.h"
#include "cuda/views.h"

namespace scn::cuda {

constexpr int32_t kMostBatch = 1 << 24;       // times kMaxSets, it is part of a number of 32 bits
constexpr int64_t kMostRows = INT_MAX / 256;  // of a set: rows times bytes of a row's parts stay in 32 bits
constexpr int64_t kMostWords = int64_t(1) << 30;  // of a set's bitmap

inline GeometryView geometry_view(const ConvGeometry& g) {
  GeometryView v{};
  for (size_t axis = 0; axis < 3; ++axis) {
    v.kernel[axis] = g.kernel[axis];
    v.stride[axis] = g.stride[axis];
    v.padding[axis] = g.padding[axis];
    v.dilation[axis] = g.dilation[axis];
  }
  v.volume = g.volume();
  v.divides = g.transposed != g.inverse;
  return v;
}

/// Lines and words of a set on a grid; throws for grids whose bitmap would be too large. Addresses are filled
/// in by whoever has the memory.
inline SitesView sites_view(const Triple& shape, int32_t batch, const std::string& who) {
  const int64_t words = (shape[2] + 31) / 32;
  const Size lines = Size(batch) * shape[0] * shape[1];
  if (lines * words > kMostWords) {
    fail(ErrorKind::kArgument, who, ": a grid of ", to_string(shape), " with batch ", batch,
         " has too many cells for a GPU (bitmaps hold 2^35). Use larger voxels, a smaller range or the CPU.");
  }
  SitesView v{};
  v.lines = int32_t(lines.value());
  v.words_per_line = int32_t(words);
  v.batch = batch;
  for (size_t axis = 0; axis < 3; ++axis) v.shape[axis] = shape[axis];
  return v;
}

/// Entries of SitesView::group_counts.
inline int64_t group_count(const SitesView& v) {
  return (int64_t(v.lines) + kLinesPerGroup - 1) / kLinesPerGroup;
}

}  // namespace scn::cuda
