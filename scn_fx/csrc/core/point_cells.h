// SPDX-License-Identifier: Apache-2.0
// Which cell of a network's grid a point lies in: once, for both backends.
#pragma once

#include <cstdint>

#include "core/both.h"
#include "scn_fx/points.h"

namespace scn {

/// A VoxelGrid as a network's sites see it. Coordinates are numbered 0: x, 1: y, 2: z.
struct PointCells {
  double low[3], edge[3];  // float32 values unless the arithmetic is float64
  int32_t size[3];         // cells inside the range
  bool float64;
  int32_t max_points;  // 0: all
  int32_t source[3];   // the coordinate that each axis of a Site has, its z first; -1: none, a single cell
};

/// floor((point - low) / edge), each step rounded to T, and whether that is a cell.
template <typename T>
SCN_FX_BOTH static inline bool cell_along(T point, T low, T edge, int32_t size, int32_t* cell) {
  const T quotient = (point - low) / edge;
  // What is not negative is cut down by the conversion. NaN is no cell.
  if (!(quotient >= T(0) && quotient < T(size))) return false;
  const int32_t found = int32_t(quotient);
  *cell = found < size ? found : size - 1;  // T(size) may be rounded up
  return true;
}

/// The cells (x, y, z) of a point, in arithmetic T; false outside.
template <typename T>
SCN_FX_BOTH static inline bool cells_of(const PointCells& grid, T x, T y, T z, int32_t cells[3]) {
  return cell_along(x, T(grid.low[0]), T(grid.edge[0]), grid.size[0], cells) &&
         cell_along(y, T(grid.low[1]), T(grid.edge[1]), grid.size[1], cells + 1) &&
         cell_along(z, T(grid.low[2]), T(grid.edge[2]), grid.size[2], cells + 2);
}

/// The site of these cells in the network's order.
SCN_FX_BOTH static inline Site site_of_cells(const PointCells& grid, int32_t batch, const int32_t cells[3]) {
  Site s{batch, 0, 0, 0};
  if (grid.source[0] >= 0) s.z = cells[grid.source[0]];
  if (grid.source[1] >= 0) s.y = cells[grid.source[1]];
  if (grid.source[2] >= 0) s.x = cells[grid.source[2]];
  return s;
}

}  // namespace scn
