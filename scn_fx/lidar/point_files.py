# SPDX-License-Identifier: Apache-2.0
"""From a point file to voxels in one call, as the commands need it."""

from __future__ import annotations

from pathlib import Path

from scn_fx.errors import LidarError
from scn_fx.lidar.grids import VoxelGrid
from scn_fx.lidar.readers import read_sweep
from scn_fx.lidar.voxels import Voxels, voxelize

__all__ = ["voxelize_file"]


def voxelize_file(path: str | Path, grid: VoxelGrid, format: str | None = None) -> Voxels:
    """The voxels in `grid` of the points in a file (see `read_sweep` and `voxelize`), float16.

    Raises LidarError that names the file, and says how to keep points without the faulty ones.
    """
    points = read_sweep(path, format)
    try:
        return voxelize(points, grid)
    except LidarError as error:
        raise LidarError(
            f"{path}: {error} Keep what is left with scn_fx.lidar.write_tensor('NAME.tensor', points), and "
            "give that file instead."
        ) from error
