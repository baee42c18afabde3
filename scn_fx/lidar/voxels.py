# SPDX-License-Identifier: Apache-2.0
"""From points to voxels: the mean of the points of each occupied voxel, as sparse networks take them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from scn_fx.compiled import core
from scn_fx.errors import ArgumentError, LidarError, NonFiniteError
from scn_fx.lidar.grids import VoxelGrid
from scn_fx.lidar.sites import SiteIndices

__all__ = ["Voxels", "core_grid", "voxelize"]

INT32_MAX = 2**31 - 1
"""More points than a frame can have."""


@dataclass(frozen=True, eq=False)
class Voxels:
    """The occupied voxels of one frame; `features, indices = voxels` takes the two arrays a network wants."""

    features: npt.NDArray[Any]
    """float16 or float32 [N, C]: the mean of the voxel's points, column by column."""
    indices: SiteIndices
    """int32 [N, 4] (batch, z, y, x), ascending, no duplicates, batch 0; they know their grid."""
    counts: npt.NDArray[np.int64]
    """int64 [N]: points in each mean."""
    dropped: int
    """Points outside the grid."""
    grid: VoxelGrid
    """The grid that the points were put into."""
    surplus: int = 0
    """Points inside the grid that no mean takes, because their voxels have `max_points` already."""

    def __iter__(self) -> Iterator[npt.NDArray[Any]]:
        return iter((self.features, self.indices))

    def __len__(self) -> int:
        return len(self.indices)


def voxelize(
    points: npt.NDArray[Any],
    grid: VoxelGrid,
    *,
    dtype: npt.DTypeLike = np.float16,
    max_points: int | None = None,
) -> Voxels:
    """The mean of the points in each occupied voxel of `grid`.

    `points` are floats [N, C >= 3] with x, y, z in metres first. The voxel of a point is
    ``floor((position - lower) / edge)`` in the grid's arithmetic: by default that of spconv's generator, so
    that the voxels are the same, one for one. `dtype` is that of the features, float16 (what libspconv takes)
    or float32. `max_points` (None: the grid's) limits the points of a mean:

    - None: all points, summed without rounding (in units of 2^-64) in any order; the sum is rounded to
      float64, divided by their number, and rounded to float32;
    - K: the first K points of each voxel in their order, summed in float32 one after the other and divided by
      their number: to the bit the mean over the points that spconv's generator keeps with
      ``max_num_points_per_voxel=K``. (torch's sum of the same points, as in OpenPCDet's MeanVFE, may add them
      in another order and differ in the last bit of float32.) `surplus` counts the points left out.

    There is no limit on voxels. Returns `Voxels`, in ascending (z, y, x) order, to the bit those of
    `Engine.run_points`. Points outside the range are dropped and counted; no points in range is a valid frame
    of zero voxels. Raises `LidarError` for non-finite values, values from 2^31 on inside the grid (with all
    points), other shapes, and means that float16 cannot hold.
    """
    points = _checked(np.asarray(points))
    out_dtype = np.dtype(dtype)
    if out_dtype not in (np.dtype(np.float16), np.dtype(np.float32)):
        raise LidarError(f"Voxel features are float16 or float32, got dtype={out_dtype.name}.")
    if max_points is None:
        max_points = grid.max_points
    elif isinstance(max_points, bool) or not isinstance(max_points, int) or max_points < 1:
        raise LidarError(f"max_points is a number of points >= 1, or None, got {max_points!r}.")
    try:
        means, sites, found, dropped = core().average_points(points, core_grid(grid, max_points))
    except NonFiniteError as error:
        raise _not_finite(points) from error
    except ArgumentError as error:
        raise LidarError(str(error)) from error
    _check_limit(means, out_dtype)
    counts = (found if max_points is None else np.minimum(found, max_points)).astype(np.int64)
    return Voxels(
        means.astype(out_dtype, copy=False),
        SiteIndices.of(sites, grid),
        counts,
        dropped=dropped,
        grid=grid,
        surplus=len(points) - dropped - int(counts.sum()),
    )


def core_grid(grid: VoxelGrid, max_points: int | None) -> tuple[Any, ...]:
    """A grid as the compiled functions and engines take it, which average at most `max_points` of a voxel."""
    single = grid.arithmetic == "float32"
    return grid.point_range, grid.voxel_size, grid.extra_z, not single, min(max_points or 0, INT32_MAX)


def _check_limit(means: npt.NDArray[Any], dtype: np.dtype[Any]) -> None:
    limit = float(np.finfo(dtype).max)
    if means.size and np.abs(means).max() > limit:
        row, column = (int(i) for i in np.argwhere(np.abs(means) > limit)[0])
        advice = "" if dtype == np.float32 else ", or pass dtype=np.float32"
        raise LidarError(
            f"Voxel features must fit in {dtype.name} (at most {limit:g}), got {means[row, column]:g} "
            f"in column {column}. Scale that column{advice}."
        )


def _checked(points: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Points as the core takes them: in C order and native byte order."""
    if points.ndim != 2 or points.shape[1] < 3 or points.dtype.kind != "f":
        raise LidarError(
            f"Points must be floats [N, >= 3] with x, y, z in metres first, got {points.dtype.name} "
            f"{list(points.shape)}."
        )
    kept = points.dtype if points.dtype.itemsize <= 8 else np.dtype(np.float64)
    return np.ascontiguousarray(points, kept.newbyteorder("="))


def _not_finite(points: npt.NDArray[Any]) -> LidarError:
    bad = np.flatnonzero(~np.isfinite(points).all(axis=1))
    return LidarError(
        f"Points must be finite, got NaN or infinity in {len(bad)} of {len(points)} points, first in "
        f"point {bad[0]}: {points[bad[0]].tolist()}. Remove them with "
        "points[np.isfinite(points).all(axis=1)], and check that the file was read in the right format."
    )
