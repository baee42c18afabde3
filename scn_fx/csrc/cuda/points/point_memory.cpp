// SPDX-License-Identifier: Apache-2.0
#include "cuda/points/point_memory.h"

#include "core/error.h"
#include "core/sizes.h"

namespace scn::cuda {

PointMemory::PointMemory(int64_t points, int64_t sites, int32_t columns)
    : frame_(1),
      totals_(1),
      places_(points),
      listed_(points),
      counts_(sites),
      starts_(sites),
      crowded_(sites),
      means_(narrow((Size(sites) * columns).value(), "The number of features of a frame's voxels")) {
  arrays_ = {frame_.data(),  totals_.data(), places_.data(),  listed_.data(),
             counts_.data(), starts_.data(), crowded_.data(), means_.data()};
}

PointFrame PointMemory::frame_of(const PointsView& points, const PointCells& cells) const {
  if (points.count > places_.size()) {
    fail(ErrorKind::kBound, "The input: ", points.count, " points, but this engine was made for ",
         places_.size(), ". Pass max_points=", points.count, " or more when making it.");
  }
  if (points.batch > kMostScans) {
    fail(ErrorKind::kArgument, "On a GPU a frame of points has up to ", kMostScans, " scans, got ",
         points.batch, ". Pass fewer at a time.");
  }
  if (cells.max_points > kMostTaken) {
    fail(ErrorKind::kArgument, "On a GPU a voxel takes its first ", kMostTaken,
         " points or all, the grid has max_points ", cells.max_points,
         ". Leave max_points out, or use the CPU.");
  }
  if (reinterpret_cast<uintptr_t>(points.points) % (points.half ? 2 : 4) != 0) {
    fail(ErrorKind::kSite,
         "The points must begin at an address that is a multiple of their type's size. Make a "
         "copy of them first.");
  }
  PointFrame frame{};
  frame.points = points.points;
  frame.count = int32_t(points.count);
  frame.columns = points.columns;
  frame.half = points.half;
  frame.scans = points.batch;
  frame.grid = cells;
  int64_t end = 0;
  for (int32_t i = 0; i < points.batch; ++i) {
    end += points.entries ? points.entries[i] : points.count;
    frame.ends[i] = int32_t(end);
  }
  return frame;
}

int64_t PointMemory::bytes() const {
  return frame_.bytes() + totals_.bytes() + places_.bytes() + listed_.bytes() + counts_.bytes() +
         starts_.bytes() + crowded_.bytes() + means_.bytes();
}

}  // namespace scn::cuda
