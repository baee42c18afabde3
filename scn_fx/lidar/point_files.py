# SPDX-License-Identifier: Apache-2.0
"""Voxels of the points of a file, as the commands need them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy.typing as npt

from scn_fx.errors import LidarError
from scn_fx.lidar.grids import VoxelGrid
from scn_fx.lidar.voxels import Voxels, voxelize

__all__ = ["voxelize_from"]


def voxelize_from(path: str | Path, points: npt.NDArray[Any], grid: VoxelGrid) -> Voxels:
    """The voxels in `grid` of `points` [N, C] that were read from `path`: float16 features.

    Raises LidarError as `voxelize` does, which names the file and says how to keep it without faulty points.
    """
    try:
        return voxelize(points, grid)
    except LidarError as error:
        raise LidarError(
            f"{path}: {error} Keep what is left with scn_fx.lidar.write_tensor('NAME.tensor', points), and "
            "give that file instead."
        ) from error
