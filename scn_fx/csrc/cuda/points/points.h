// SPDX-License-Identifier: Apache-2.0
// From points to the sites of set 0 and the mean of the points of each, on the device: no count comes to the
// host.
#pragma once

#include <cuda_runtime_api.h>

#include "core/point_cells.h"
#include "cuda/views.h"

namespace scn::cuda {

constexpr int32_t kMostScans = 512;  // of a frame: what is said of them is a kernel parameter
/// Of VoxelGrid::max_points: the first points of a voxel are looked for one after the other.
constexpr int32_t kMostTaken = 4096;

/// The caller's points; lives on the device, so that one captured graph serves every frame and grid.
struct PointFrame {
  const void* points;  // [count, columns]
  int32_t count, columns;
  int32_t half;  // float16, otherwise float32
  int32_t scans;
  PointCells grid;
  int32_t ends[kMostScans];  // points up to the end of each scan
};

/// What is counted over a frame.
struct PointTotals {
  int32_t listed;   // points inside
  int32_t dropped;  // points outside
  int32_t surplus;  // points inside that no mean takes
  int32_t crowded;  // rows of many points
};

/// Where a point goes: its line and x in the bitmap, then its row and its number among the points of the row.
struct PointPlace {
  int32_t line, at;
};

/// Memory for the points of a frame.
struct PointArrays {
  PointFrame* frame;
  PointTotals* totals;
  PointPlace* places;  // [points]; line -1: none
  int32_t* listed;     // [points] points, row by row
  int32_t* counts;     // [sites] points of each row
  int32_t* starts;     // [sites] of each row in `listed`; rows are in any order there
  int32_t* crowded;    // [sites] rows of many points, in any order
  uint16_t* means;     // float16 [sites, columns]
};

/// Step 1 in place of begin_frame: also *arrays.frame = points, and totals and counts as at the start of a
/// frame.
void begin_points(const PointArrays& arrays, const PointFrame& points, DeviceFrame* frame,
                  const DeviceFrame& value, int32_t* status, int32_t status_entries, int32_t* far_counts,
                  int32_t maps, cudaStream_t stream);

/// Step 2 in place of mark_input: checks the points and marks the cells of those inside.
void mark_points(const PointArrays& arrays, const SitesView& input, int32_t* status, cudaStream_t stream);

/// After rank_sites: the means, which become the features of *frame, with the sites of set 0 in their order.
void average_points(const PointArrays& arrays, const SitesView& input, DeviceFrame* frame,
                    cudaStream_t stream);

}  // namespace scn::cuda
