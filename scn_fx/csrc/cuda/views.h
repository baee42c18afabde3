// SPDX-License-Identifier: Apache-2.0
// What kernels see: plain structs of device pointers and sizes, passed by value. Shared by host and device
// code.
#pragma once

#include <cstdint>

#include "types.h"

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
  int32_t* group_counts;  // [ceil(lines / kLinesPerGroup)], sites on each group of lines, set when ranking
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

/// A kernel map, tile by tile. The distinct input rows that a tile of kTileRows output rows reads are listed
/// once; the map itself counts in that list.
struct MapView {
  GeometryView geometry;
  SitesView input, output;
  /// [tiles, volume, kTileRows] 1 + position in the tile's list; 0 where there is no neighbour (or no such
  /// row).
  uint16_t* local;
  /// [tiles, list_capacity] distinct input rows, ascending; a multiple of 4 entries per tile.
  int32_t* list;
  /// [tiles] entries of the list, or kWide: more than list_capacity. `local` and `list` are then not valid,
  /// and kernels look the neighbours up themselves (find_neighbour in lookup.cuh).
  int32_t* list_length;
  int32_t list_capacity;
};
constexpr int32_t kWide = -1;

/// What went wrong in a frame, counted on the device: int32 entries, zero (first_*: kNoRow) when nothing did.
enum StatusEntry : int32_t {
  kOutside,         // sites outside the grid
  kFirstOutside,    // smallest such row of the caller's indices
  kDuplicates,      // sites that occur again
  kFirstDuplicate,  // a row of the caller's indices that repeats another
  kNonFinite,       // feature values that are NaN, infinite or beyond float16
  kFirstNonFinite,  // smallest row of the caller's features that holds one
  kFound,           // then one entry per site set: sites found, even beyond its capacity
};
// After the sets, two entries per step: values lost in float16 before a fused Add, and when stored.
constexpr int32_t kNoRow = 0x7fffffff;

/// The caller's frame; lives on the device, so that one captured graph serves every frame.
struct DeviceFrame {
  const void* features;  // [sites, channels]
  const Site* indices;   // [sites]
  int32_t sites;
  int32_t half;   // features are float16, otherwise float32
  int32_t batch;  // samples in this frame, at most SitesView::batch
};

}  // namespace scn::cuda
