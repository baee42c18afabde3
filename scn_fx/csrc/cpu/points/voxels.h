// SPDX-License-Identifier: Apache-2.0
// From points to the sites of a network and the mean of the points of each, on the CPU.
#pragma once

#include <cstdint>

#include "core/buffer.h"
#include "core/memory_budget.h"
#include "core/parallel.h"
#include "core/point_cells.h"
#include "core/types.h"
#include "cpu/maps/site_set.h"

namespace scn {

enum class PointType { kFloat16, kFloat32, kFloat64 };

/// Points in host memory: [count, columns], x, y, z first, of one or several scans (see PointsView).
struct PointRows {
  const void* data = nullptr;
  PointType type = PointType::kFloat32;
  int64_t count = 0;
  int32_t columns = 0;
  const int64_t* entries = nullptr;
  int32_t batch = 1;
};

/// What became of points: the rows of their sites, and how many they were. Made to be used again, so that
/// memory is taken once.
struct PointMeans {
  Buffer<float> means;     // [sites, columns]
  Buffer<int32_t> counts;  // [sites] points in each site, taken into its mean or not
  int64_t dropped = 0;     // points outside the grid
  int64_t surplus = 0;     // points inside that no mean takes

  // of each point, -1 outside: its cell, then its row; its place among the points of the row
  Buffer<int64_t> cells;
  Buffer<int32_t> rows, places;
  Buffer<int32_t> listed;  // points, site by site
  Buffer<int64_t> starts;  // [sites + 1] of each site in `listed`

  int64_t bytes() const {
    return means.bytes() + counts.bytes() + cells.bytes() + rows.bytes() + places.bytes() + listed.bytes() +
           starts.bytes();
  }
};

/// Indexes the occupied cells of a batch of grids of `shape` into `set`, its sites ascending, and averages
/// the points of each. The result is the same for every order of the points (without max_points) and every
/// number of threads. Throws for points that are not finite or too large.
void average_points(const PointRows& points, const PointCells& grid, const Triple& shape, ThreadPool& pool,
                    MemoryBudget& budget, SiteSet* set, PointMeans* out);

}  // namespace scn
