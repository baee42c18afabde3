# SPDX-License-Identifier: Apache-2.0
"""The voxel grid of a captured graph: recorded at capture or later, checked on frames."""

from __future__ import annotations

from torch import fx

from scn_fx.dimensions import in_zyx
from scn_fx.errors import CaptureError, GridError
from scn_fx.graph import metadata, operator_spec, set_metadata
from scn_fx.lidar.grids import VoxelGrid
from scn_fx.lidar.sites import NetworkGrid

__all__ = ["graph_grid", "input_shape", "network_grid", "set_grid"]


def set_grid(graph: fx.GraphModule, grid: VoxelGrid) -> None:
    """Record the grid that the frames of `graph` are voxelised in; files exported from it say it too.

    Raises:
        GridError: the network takes sites in a grid of another shape.
        CaptureError: `grid` is no VoxelGrid.
    """
    if not isinstance(grid, VoxelGrid):
        raise CaptureError(
            f"grid must be a scn_fx.lidar.VoxelGrid, got {type(grid).__name__}. Make one with "
            "VoxelGrid(point_range, voxel_size), or take one of scn_fx.lidar.GRIDS."
        )
    shape = _spatial_shape(graph)
    if shape is not None and grid.spatial_shape != shape:
        sizes = [" x ".join(map(str, size)) for size in (grid.spatial_shape, shape)]
        order = " (its own order is x, y, z)" if metadata(graph)["axes"] == "xyz" else ""
        raise GridError(
            f"The grid has {sizes[0]} (z, y, x) voxels, the network takes sites in {sizes[1]}{order}. "
            "Pass the range and voxel size of the network's configuration (extra_z counts the empty slices "
            "above the range), or the model and arguments of this grid."
        )
    set_metadata(graph, grid=grid.to_dict())


def graph_grid(graph: fx.GraphModule) -> VoxelGrid | None:
    """The grid that `capture(…, grid=…)` or `set_grid` recorded; None if neither did."""
    # Graphs that were saved by earlier versions have no such entry.
    found = metadata(graph).get("grid")
    return None if found is None else VoxelGrid.from_dict(found)


def network_grid(graph: fx.GraphModule) -> NetworkGrid:
    """What `graph` says about the frames it takes."""
    meta = metadata(graph)
    ndim = int(meta.get("ndim", 3))
    return NetworkGrid("the graph", graph_grid(graph), _spatial_shape(graph), str(meta["axes"]), ndim)


def input_shape(graph: fx.GraphModule) -> list[int]:
    """Sites of the input along its index columns, as an operator that reads them says; [] without one."""
    indices = metadata(graph)["indices"]
    for node in graph.graph.nodes:
        if node.op == "placeholder" and node.name == indices:
            for user in node.users:
                spec = operator_spec(user)
                if spec is not None and spec.grid is not None:
                    return [int(size) for size in user.kwargs[spec.grid.argument]]
    return []


def _spatial_shape(graph: fx.GraphModule) -> tuple[int, int, int] | None:
    """The same in the order (z, y, x)."""
    shape = input_shape(graph)
    if len(shape) != 3:
        return None
    meta = metadata(graph)
    return in_zyx(shape, str(meta["axes"]), int(meta.get("ndim", 3)))
