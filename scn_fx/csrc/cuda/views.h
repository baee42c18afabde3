// SPDX-License-Identifier: Apache-2.0
// What kernels see: plain structs of device pointers and sizes, passed by value. Shared by host and device
// code.
#pragma once

#include <cstdint>

#include "core/both.h"
#include "scn_fx/frame.h"

namespace scn::cuda {

/// Output rows that are computed together; kernel maps are stored tile by tile.
constexpr int32_t kTileRows = 64;

/// 32 neighbouring cells of a line along x: which of them are sites, and how many sites come before them.
struct RankWord {
  uint32_t bits;
  int32_t base;  // valid where bits != 0
};

/// The sites of one set on one grid. Lines are runs of cells along x, numbered (batch * Z + z) * Y + y.
struct SitesView {
  RankWord* words;        // [lines, words_per_line]
  int32_t* line_counts;   // [lines], sites on each line; zero once they are ranked
  int32_t* group_counts;  // [ceil(lines / kLinesPerGroup)], room for rank_sites
  Site* sites;            // [capacity], ascending
  int32_t* count;         // sites; at most `capacity`, whatever was found
  int32_t capacity, lines, words_per_line;
  int32_t batch, shape[3];
  int32_t number;  // of the set in its network
};
constexpr int32_t kLinesPerGroup = 32;

/// Which input cell an offset of an output cell reads, along one axis: out * stride - padding + k * dilation,
/// or, with `divides`, (out + padding - k * dilation) / stride where that is a whole number.
struct GeometryView {
  int32_t kernel[3], stride[3], padding[3], dilation[3];
  int32_t volume;
  bool divides;
};

/// A kernel map, tile by tile: one record for kTileRows output rows, of tile_bytes bytes. It begins with the
/// distances uint16 [volume, kTileRows], rows in the order of row_place(), and ends with the bases int32
/// [volume]: offset k of an output row reads input row base[k] + distance, or none where the distance is
/// kNoNeighbour. Neighbours of rows that follow each other follow each other too, so a distance rarely needs
/// more than 16 bits; where one does, base[k] is the complement ~s of the number of a far slot, whose input
/// rows (-1: none) count.
struct MapView {
  GeometryView geometry;
  SitesView input, output;
  char* tiles;
  int32_t tile_bytes;
  int32_t* far;        // [far_capacity, kTileRows] input rows, in the order of row_place()
  int32_t* far_count;  // slots in use; zero when a frame begins
  int32_t far_capacity;
};
constexpr int32_t kNoNeighbour = 0xffff;

SCN_FX_BOTH constexpr int32_t bases_at(int32_t volume) { return volume * kTileRows * 2; }
SCN_FX_BOTH constexpr int32_t map_tile_bytes(int32_t volume) {
  return bases_at(volume) + (volume * 4 + 15) / 16 * 16;
}

/// Where a row of a tile stands in a record: rows i and i + 8 of a fragment of 16 side by side, since the
/// same lane multiplies both.
SCN_FX_BOTH constexpr int32_t row_place(int32_t row) { return (row & ~15) | (row & 7) << 1 | (row >> 3 & 1); }

/// What went wrong in a frame, counted on the device: int32 entries, zero (first_*: kNoRow) when nothing did.
enum StatusEntry : int32_t {
  kOutside,          // sites outside the grid
  kFirstOutside,     // smallest such row of the caller's indices
  kDuplicates,       // sites that occur again
  kFirstDuplicate,   // a row of the caller's indices that repeats another
  kNonFinite,        // feature values that are NaN, infinite or beyond float16
  kFirstNonFinite,   // smallest row of the caller's features that holds one
  kBadPoints,        // points that hold NaN or infinity
  kFirstBadPoint,    // the first of them
  kLargePoints,      // points inside the grid that hold values beyond what sums are made of
  kFirstLargePoint,  // the first of them
  kFound,            // then one entry per site set: sites found, even beyond its capacity
};
// After the sets, two entries per step: values lost in float16 before a fused Add, and when stored.
constexpr int32_t kNoRow = 0x7fffffff;
/// Whether an entry is the number of a row or point.
SCN_FX_BOTH constexpr bool holds_row(int32_t entry) {
  return entry == kFirstOutside || entry == kFirstDuplicate || entry == kFirstNonFinite ||
         entry == kFirstBadPoint || entry == kFirstLargePoint;
}

/// The caller's frame; lives on the device, so that one captured graph serves every frame.
struct DeviceFrame {
  const void* features;  // [sites, channels]
  const Site* indices;   // [sites]
  int32_t sites;
  int32_t half;   // features are float16, otherwise float32
  int32_t batch;  // samples in this frame, at most SitesView::batch
};

}  // namespace scn::cuda
