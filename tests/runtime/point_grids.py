# SPDX-License-Identifier: Apache-2.0
"""What tests of points on both devices share."""

from __future__ import annotations

from typing import Any

from scn_fx.lidar import VoxelGrid
from tests.oracle.points import Cells

__all__ = ["grid_of", "same"]


def grid_of(cells: Cells, extra_z: int = 1) -> VoxelGrid:
    """The same grid as users write it."""
    high = [low + n * edge for low, n, edge in zip(cells.low, cells.size, cells.edge, strict=True)]
    return VoxelGrid(
        (*cells.low, *high),
        cells.edge,
        extra_z,
        "float64" if cells.float64 else "float32",
        cells.max_points,
    )


def same(a: Any, b: Any) -> bool:
    """Whether two results are the same bit by bit."""
    if isinstance(a, tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
