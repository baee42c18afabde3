// SPDX-License-Identifier: Apache-2.0
// Points and grids as Python has them.
#pragma once

#include <optional>
#include <vector>

#include "core/error.h"
#include "engine/session.h"
#include "python/arrays.h"
#include "scn_fx/points.h"

namespace scn::python {

/// Voxelisation without an engine.
void bind_points(nb::module_& m);

/// A grid from (point_range, voxel_size, extra_z, float64, max_points), as scn_fx.lidar.VoxelGrid has checked
/// it.
VoxelGrid grid_from(const nb::object& fields);
std::optional<VoxelGrid> optional_grid(const nb::object& fields);

/// What the engine makes of points: (features float16 [N, C], indices int32 [N, 4], dropped, surplus).
VoxelArrays voxelized(Session& engine, const PointsView& view);

/// Points that refer to the array's memory; checks dtype and shape. `entries` must outlive the view.
template <typename A>
PointsView points_view(const A& points, const std::vector<int64_t>& entries) {
  const bool half = is_float(points, 16);
  if ((!half && !is_float(points, 32)) || points.ndim() != 2) {
    fail(ErrorKind::kSite, "points must be float16 or float32 of shape [P, C], got ", dtype_name(points), " ",
         shape_name(points), ".");
  }
  PointsView view;
  view.points = points.data();
  view.half = half;
  view.count = int64_t(points.shape(0));
  view.columns = narrow(int64_t(points.shape(1)), "The number of columns of the points");
  view.entries = entries.data();
  view.batch = narrow(int64_t(entries.size()), "The number of scans");
  return view;
}

}  // namespace scn::python
