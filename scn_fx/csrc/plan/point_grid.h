// SPDX-License-Identifier: Apache-2.0
// The grid that a network's file records, and how points are put into the network's sites.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "core/point_cells.h"
#include "plan/network.h"

namespace scn {

/// The grid of the metadata scn_fx.grid.*; none without such keys. Throws kOnnx if they are damaged.
std::optional<VoxelGrid> recorded_grid(const std::map<std::string, std::string>& metadata);

/// Sites (z, y, x) of a grid with its extra slices. Throws for numbers that are no grid.
Triple sites_of_grid(const VoxelGrid& grid);

/// Throws unless points can be put into `grid`, whose voxels are the network's sites.
PointCells point_cells(const Network& network, const VoxelGrid& grid);

/// The grid to put points into: the one that the caller `given`, else the file's. Throws if there is none, or
/// the two are different places.
VoxelGrid grid_for_points(const Network& network, const std::optional<VoxelGrid>& given);

}  // namespace scn
