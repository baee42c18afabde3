// SPDX-License-Identifier: Apache-2.0
#include "python/points_binding.h"

#include <nanobind/stl/array.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <cstring>
#include <tuple>

#include "cpu/points/voxels.h"
#include "plan/point_grid.h"
#include "python/caller.h"
#include "python/gil.h"
#include "python/operator_run.h"

namespace scn::python {
namespace {

NumpyArray site_array(const std::vector<Site>& sites) {
  std::unique_ptr<int32_t[]> rows(new int32_t[(Size(sites.size()) * 4).count()]);
  if (!sites.empty()) std::memcpy(rows.get(), sites.data(), sites.size() * sizeof(Site));
  return int32_array(std::move(rows), sites.size(), 4);
}

template <typename T>
std::unique_ptr<T[]> copied(const T* data, size_t count) {
  std::unique_ptr<T[]> copy(new T[count]);
  std::copy(data, data + count, copy.get());
  return copy;
}

/// (means float32 [N, C], sites int32 [N, 4] (0, z, y, x), points of each site int32 [N], dropped).
PlainTuple average_points_numpy(const Array& points, const PlainGrid& fields, Integer threads) {
  PointRows rows;
  rows.data = points.data();
  rows.type = is_float(points, 16)   ? PointType::kFloat16
              : is_float(points, 32) ? PointType::kFloat32
                                     : PointType::kFloat64;
  if (points.ndim() != 2 || points.shape(1) < 3 ||
      (rows.type == PointType::kFloat64 && !is_float(points, 64))) {
    fail(ErrorKind::kSite, "points must be float16, float32 or float64 of shape [P, >= 3], got ",
         dtype_name(points), " ", shape_name(points), ".");
  }
  rows.count = int64_t(points.shape(0));
  rows.columns = narrow(int64_t(points.shape(1)), "The number of columns of the points");
  const VoxelGrid grid = grid_from(fields);
  Network network;
  const Triple shape = sites_of_grid(grid);
  network.sets.push_back({shape, -1});
  network.axes = "zyx";
  const PointCells cells = point_cells(network, grid);
  SiteSet set;
  PointMeans made;
  run("The points", threads, [&](ThreadPool& pool) {
    MemoryBudget budget = MemoryBudget::of_operator();
    average_points(rows, cells, shape, pool, budget, &set, &made);
  });
  const size_t sites = set.sites.size(), columns = points.shape(1);
  return nb::make_tuple(
      to_numpy(copied(made.means.data(), (Size(sites) * columns).count()), {sites, columns}, float_dtype(32)),
      site_array(set.sites), to_numpy(copied(made.counts.data(), sites), {sites}, nb::dtype<int32_t>()),
      made.dropped);
}

}  // namespace

VoxelGrid grid_from(const nb::object& fields) {
  const auto [range, size, extra_z, float64, max_points] =
      nb::cast<std::tuple<std::array<double, 6>, std::array<double, 3>, int32_t, bool, int32_t>>(fields);
  return {range, size, extra_z, float64, max_points};
}

std::optional<VoxelGrid> optional_grid(const nb::object& fields) {
  if (fields.is_none()) return std::nullopt;
  return grid_from(fields);
}

VoxelArrays voxelized(Session& engine, const PointsView& view) {
  Voxels voxels;
  {
    const GilRelease release;
    voxels = engine.voxelize(view);
  }
  const std::vector<size_t> shape{size_t(voxels.count), size_t(voxels.channels)};
  return nb::make_tuple(to_numpy(std::move(voxels.features), shape, float_dtype(16)),
                        site_array(voxels.sites), voxels.dropped, voxels.surplus);
}

void bind_points(nb::module_& m) {
  using namespace nb::literals;
  m.def("average_points", average_points_numpy, "points"_a, "grid"_a, "threads"_a = 0,
        "Means float32 [N, C] of the points [P, C] in each occupied voxel, sites int32 [N, 4] (0, z, y, x), "
        "the\n"
        "points of each int32 [N], and how many points lie outside; `grid` as in Engine.");
}

}  // namespace scn::python
