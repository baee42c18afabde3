// SPDX-License-Identifier: Apache-2.0
// Points into voxels as scn_fx.lidar.voxelize puts them: the grid in float32, as spconv's generator has it,
// the mean of all points of a voxel in float64, rounded to float16 once.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <vector>

#include "scn_fx/frame.h"
#include "scn_fx/half.h"

namespace example {

/// A box of space and the edges of its voxels, both in the order x, y, z.
struct Grid {
  double lower[3], upper[3], edge[3];
  /// Voxels along an axis.
  int32_t extent(int axis) const { return int32_t(std::lround((upper[axis] - lower[axis]) / edge[axis])); }
};

/// Points of one scan: x, y, z in metres first.
struct Points {
  int64_t count = 0;
  int32_t columns = 0;
  std::vector<float> values;  // [count, columns]
};

struct Voxels {
  std::vector<uint16_t> features;  // float16 [count, channels]
  std::vector<scn::Site> sites;    // ascending
  int64_t outside = 0;             // points that lie in no voxel
};

/// Rounded once: by way of float32, halves of a unit could round twice.
inline uint16_t to_half(double value) {
  float single = float(value);
  if (double(single) != value && std::isfinite(single)) {  // to the odd one of its two neighbours
    if (std::fabs(double(single)) > std::fabs(value)) single = std::nextafter(single, 0.0f);
    uint32_t bits;
    std::memcpy(&bits, &single, sizeof bits);
    bits |= 1;
    std::memcpy(&single, &bits, sizeof bits);
  }
  return scn::float_to_half(single);
}

/// The first `channels` columns of the points.
inline Voxels voxels_of(const Points& points, const Grid& grid, int32_t channels) {
  constexpr int64_t kOutside = -1;
  Voxels voxels;
  std::vector<int64_t> cells(size_t(points.count), 0), order(size_t(points.count));
  for (int64_t i = 0; i < points.count; ++i) {
    const float* point = points.values.data() + i * points.columns;
    for (int axis = 2; axis >= 0; --axis) {  // z is the slowest
      const float place = std::floor((point[axis] - float(grid.lower[axis])) / float(grid.edge[axis]));
      const bool inside = place >= 0 && place < float(grid.extent(axis)) && cells[size_t(i)] != kOutside;
      cells[size_t(i)] = inside ? cells[size_t(i)] * grid.extent(axis) + int64_t(place) : kOutside;
    }
  }
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t a, int64_t b) { return cells[size_t(a)] < cells[size_t(b)]; });
  for (size_t begin = 0, end = 0; begin < order.size(); begin = end) {
    const int64_t cell = cells[size_t(order[begin])];
    while (end < order.size() && cells[size_t(order[end])] == cell) ++end;
    if (cell == kOutside) {
      voxels.outside = int64_t(end);
      continue;
    }
    for (int32_t c = 0; c < channels; ++c) {
      double sum = 0;
      for (size_t i = begin; i < end; ++i) sum += points.values[size_t(order[i] * points.columns + c)];
      voxels.features.push_back(to_half(sum / double(end - begin)));
    }
    const int64_t width = grid.extent(0), plane = width * grid.extent(1);
    voxels.sites.push_back({0, int32_t(cell / plane), int32_t(cell % plane / width), int32_t(cell % width)});
  }
  return voxels;
}

}  // namespace example
