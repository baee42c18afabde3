// SPDX-License-Identifier: Apache-2.0
// Points of a LiDAR, the grid whose voxels they are put into, and what becomes of them.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "scn_fx/frame.h"

namespace scn {

/// A regular grid of voxels over a box of space. A point is inside when lower <= point < upper; its voxel is
/// floor((point - lower) / edge) along each axis.
struct VoxelGrid {
  std::array<double, 6> point_range{};  // lower and upper corner in metres: x, y, z, x, y, z
  std::array<double, 3> voxel_size{};   // edges in metres: x, y, z
  int32_t extra_z = 1;  // empty slices above the box, as CenterPoint's and SECOND's encoders expect
  /// Every step is rounded to float32, as spconv's, mmcv's and det3d's voxelisers do; with this, to float64.
  bool float64 = false;
  /// The mean of a voxel takes its first points only, as many as this, summed in float32 one after the other.
  /// 0: all points, in any order, see docs/explanation/numerics.md.
  int32_t max_points = 0;
};

/// The points of one or several scans as the caller has them: x, y, z in metres first.
struct PointsView {
  const void* points = nullptr;  // [count, columns]
  bool half = false;             // float16 bits instead of float32
  int64_t count = 0;
  int32_t columns = 0;  // those that the network reads
  /// Points of each scan, [batch], in host memory in any case; the scans follow each other. Null: one scan.
  const int64_t* entries = nullptr;
  int32_t batch = 1;
};

/// The occupied voxels of a frame, as a network reads them.
struct Voxels {
  int64_t count = 0;
  int32_t channels = 0;
  std::unique_ptr<uint16_t[]> features;  // float16 bits [count, channels]: means of the points
  std::vector<Site> sites;               // [count], ascending, on the network's axes
  int64_t dropped = 0;                   // points outside the grid
  int64_t surplus = 0;                   // points that no mean takes, beyond VoxelGrid::max_points
};

}  // namespace scn
