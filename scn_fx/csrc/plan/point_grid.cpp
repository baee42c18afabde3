// SPDX-License-Identifier: Apache-2.0
#include "plan/point_grid.h"

#include <array>
#include <charconv>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "core/sizes.h"

namespace scn {
namespace {

const std::string kPrefix = kGridPrefix;
constexpr double kWhole = 1e-3;  // as in Python: ranges are decimals, rounded

[[noreturn]] void damaged(const std::string& key, const std::string& expected, const std::string& text) {
  fail(ErrorKind::kOnnx, "The model has damaged metadata about its voxel grid: expected ", key, " to be ",
       expected, ", got '", text.substr(0, 80), "'. Export it again.");
}

/// Numbers separated by commas. Not through a stream or strtod, whose decimal point is the locale's.
template <typename T, size_t count>
std::array<T, count> numbers(const std::string& key, const std::string& text) {
  std::array<T, count> found{};
  const char *at = text.data(), *const end = at + text.size();
  for (size_t i = 0; i < count; ++i) {
    const auto read = std::from_chars(at, end, found[i]);
    const bool last = i + 1 == count;
    if (read.ec != std::errc() || (last ? read.ptr != end : read.ptr == end || *read.ptr != ','))
      damaged(key, std::to_string(count) + " number(s)", text);
    at = read.ptr + (last ? 0 : 1);
  }
  return found;
}

bool same_place(const VoxelGrid& a, const VoxelGrid& b) {
  bool same = a.extra_z == b.extra_z;
  for (size_t i = 0; i < 6; ++i) {
    // ends of a range that differ by less than a voxel's rounding are one number of voxels
    const double tolerance = i < 3 ? 0.0 : kWhole * b.voxel_size[i - 3];
    same = same && std::fabs(float(a.point_range[i]) - float(b.point_range[i])) <= tolerance;
  }
  for (size_t i = 0; i < 3; ++i) same = same && float(a.voxel_size[i]) == float(b.voxel_size[i]);
  return same;
}

std::string text_of(const VoxelGrid& grid) {
  std::string text = "from (";
  for (size_t i = 0; i < 6; ++i) {
    append_text(text, grid.point_range[i]);
    text += i == 2 ? ") to (" : i == 5 ? ") m in steps of (" : ", ";
  }
  for (size_t i = 0; i < 3; ++i) {
    append_text(text, grid.voxel_size[i]);
    text += i == 2 ? ") m" : ", ";
  }
  return text + " and " + std::to_string(grid.extra_z) + " extra slice(s)";
}

/// volatile: GCC 12 at -O3 leaves out double(float(v)) in a loop over `condition ? v : double(float(v))`.
double in_float32(double v) {
  volatile float rounded = float(v);
  return rounded;
}

/// Cells along x, y or z, without extra slices.
int32_t cells_along(const VoxelGrid& grid, size_t axis) {
  const double low = grid.point_range[axis], high = grid.point_range[axis + 3], edge = grid.voxel_size[axis];
  const double steps = (high - low) / edge, whole = std::nearbyint(steps);
  if (!(edge > 0) || !(high > low) || !std::isfinite(steps) || std::fabs(steps - whole) > kWhole ||
      whole < 1 || whole > std::numeric_limits<int32_t>::max()) {
    fail(ErrorKind::kArgument,
         "A grid needs lower < upper, a voxel edge > 0 and a whole number of voxels along ",
         std::string(1, "xyz"[axis]), ", got ", low, " to ", high, " m in steps of ", edge, " m.");
  }
  return int32_t(whole);
}

}  // namespace

std::optional<VoxelGrid> recorded_grid(const std::map<std::string, std::string>& metadata) {
  VoxelGrid grid;
  bool any = false, range = false, size = false;
  for (auto it = metadata.lower_bound(kPrefix);
       it != metadata.end() && it->first.compare(0, kPrefix.size(), kPrefix) == 0; ++it) {
    const std::string &key = it->first, name = key.substr(kPrefix.size()), &text = it->second;
    any = true;
    if (name == "point_range") {
      grid.point_range = numbers<double, 6>(key, text);
      range = true;
    } else if (name == "voxel_size") {
      grid.voxel_size = numbers<double, 3>(key, text);
      size = true;
    } else if (name == "extra_z") {
      grid.extra_z = numbers<int32_t, 1>(key, text)[0];
      if (grid.extra_z < 0) damaged(key, "0 or more", text);
    } else if (name == "max_points") {
      grid.max_points = numbers<int32_t, 1>(key, text)[0];
      if (grid.max_points < 1) damaged(key, "1 or more", text);
    } else if (name == "arithmetic") {
      if (text != "float32" && text != "float64") damaged(key, "float32 or float64", text);
      grid.float64 = text == "float64";
    } else {
      damaged(kPrefix + "*", "point_range, voxel_size, extra_z, arithmetic and max_points", name);
    }
  }
  if (!any) return std::nullopt;
  if (!range || !size) damaged(kPrefix + (range ? "voxel_size" : "point_range"), "there", "nothing");
  return grid;
}

Triple sites_of_grid(const VoxelGrid& grid) {
  if (grid.extra_z < 0 || grid.max_points < 0) {
    fail(ErrorKind::kArgument, "A grid needs extra_z >= 0 and max_points >= 0 (0: all), got ", grid.extra_z,
         " and ", grid.max_points, ".");
  }
  const int64_t slices = int64_t(cells_along(grid, 2)) + grid.extra_z;
  return {narrow(slices, "The number of slices of a grid"), cells_along(grid, 1), cells_along(grid, 0)};
}

PointCells point_cells(const Network& network, const VoxelGrid& grid) {
  if (network.axes != "zyx" && network.axes != "xyz") {
    fail(ErrorKind::kOnnx, "The model has damaged metadata: expected scn_fx.axes to be 'zyx' or 'xyz', got '",
         network.axes.substr(0, 40), "'. Export it again.");
  }
  PointCells cells{};
  const Triple sites = sites_of_grid(grid);
  const int32_t shape[3] = {sites[2], sites[1], sites[0]};
  for (size_t axis = 0; axis < 3; ++axis) {
    cells.size[axis] = shape[axis] - (axis == 2 ? grid.extra_z : 0);
    const double low = grid.point_range[axis], edge = grid.voxel_size[axis];
    cells.low[axis] = grid.float64 ? low : in_float32(low);
    cells.edge[axis] = grid.float64 ? edge : in_float32(edge);
  }
  cells.float64 = grid.float64;
  cells.max_points = grid.max_points;
  bool fits = true, used[3] = {};
  const Triple& wanted = network.sets[0].shape;
  for (int axis = 0; axis < 3; ++axis) {
    const int lacks = 3 - network.ndim;
    cells.source[axis] = axis < lacks ? -1 : network.axes == "xyz" ? axis - lacks : 2 - axis;
    const int source = cells.source[axis];
    fits = fits && wanted[size_t(axis)] == (source < 0 ? 1 : shape[source]);
    if (source >= 0) used[source] = true;
  }
  for (int i = 0; i < 3; ++i) fits = fits && (used[i] || shape[i] == 1);
  if (!fits) {
    fail(ErrorKind::kArgument, "The grid ", text_of(grid), " has ", shape[2], " x ", shape[1], " x ",
         shape[0], " (z, y, x) sites, but the network's lie on ", to_string(wanted), " in the order ",
         network.axes, network.ndim == 3 ? "" : ", with one cell along the axes that it lacks",
         ". Give the grid that the network was trained with.");
  }
  return cells;
}

VoxelGrid grid_for_points(const Network& network, const std::optional<VoxelGrid>& given) {
  const std::optional<VoxelGrid> recorded = recorded_grid(network.grid_entries);
  if (!given && !recorded) {
    fail(ErrorKind::kArgument,
         "Points need a voxel grid, and the file does not record one. Give the grid that the network was "
         "trained "
         "with: EngineOptions::grid, in Python Engine(..., grid=...).");
  }
  if (given && recorded && !same_place(*given, *recorded)) {
    fail(ErrorKind::kArgument, "The grid given is ", text_of(*given), ", but the file's is ",
         text_of(*recorded), ". Leave it out, or give the network's grid.");
  }
  return given ? *given : *recorded;
}

}  // namespace scn
