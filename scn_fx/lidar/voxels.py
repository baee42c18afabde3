# SPDX-License-Identifier: Apache-2.0
"""From points to voxels: the mean of the points of each occupied voxel, as sparse networks take them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from scn_fx.errors import LidarError
from scn_fx.lidar.grids import VoxelGrid
from scn_fx.lidar.sites import SiteIndices

__all__ = ["Voxels", "voxelize"]


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

    - None: all points, summed in float64;
    - K: the first K points of each voxel in their order, summed in float32 one after the other and divided by
      their number: to the bit the mean over the points that spconv's generator keeps with
      ``max_num_points_per_voxel=K``. (torch's sum of the same points, as in OpenPCDet's MeanVFE, may add them
      in another order and differ in the last bit of float32.) `surplus` counts the points left out.

    There is no limit on voxels. Returns `Voxels`, in ascending (z, y, x) order. Points outside the range are
    dropped and counted; no points in range is a valid frame of zero voxels. Raises `LidarError` for
    non-finite values, other shapes, and means that float16 cannot hold.
    """
    points = _checked(np.asarray(points))
    out_dtype = np.dtype(dtype)
    if out_dtype not in (np.dtype(np.float16), np.dtype(np.float32)):
        raise LidarError(f"Voxel features are float16 or float32, got dtype={out_dtype.name}.")
    if max_points is None:
        max_points = grid.max_points
    elif isinstance(max_points, bool) or not isinstance(max_points, int) or max_points < 1:
        raise LidarError(f"max_points is a number of points >= 1, or None, got {max_points!r}.")

    inside, key = _cells(points, grid)
    order = np.argsort(key, kind="stable")
    key = key[order]
    first = np.ones(len(key), bool)
    first[1:] = key[1:] != key[:-1]
    starts = np.flatnonzero(first)
    counts = np.diff(np.append(starts, len(key))).astype(np.int64)
    rows = np.flatnonzero(inside)[order]

    means: npt.NDArray[Any]
    if max_points is None:
        means = _means(points, rows, np.cumsum(first) - 1, counts)
    else:
        counts = np.minimum(counts, max_points)
        means = _first_means(points, rows, starts, counts)
    _check_limit(means, out_dtype)
    indices = np.zeros((len(starts), 4), np.int32)
    indices[:, 1], rest = np.divmod(key[starts], grid.box_shape[1] * grid.box_shape[2])
    indices[:, 2], indices[:, 3] = np.divmod(rest, grid.box_shape[2])
    return Voxels(
        means.astype(out_dtype),
        SiteIndices.of(indices, grid),
        counts,
        dropped=len(points) - len(key),
        grid=grid,
        surplus=len(key) - int(counts.sum()),
    )


def _cells(points: npt.NDArray[Any], grid: VoxelGrid) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    """Which points [N] lie inside, and for each of those its voxel's place in (z, y, x) order."""
    key = np.zeros(len(points), np.int64)
    inside = np.ones(len(points), bool)
    single = grid.arithmetic == "float32"
    # spconv keeps the grid in float32, and computes in the type of the points, float32 or float64.
    kind = np.dtype(np.float32 if single and points.dtype.itemsize <= 4 else np.float64)
    # Column by column: contiguous columns are several times faster here than rows of three.
    for axis, size in zip((2, 1, 0), grid.box_shape, strict=True):
        low, edge = grid.point_range[axis], grid.voxel_size[axis]
        if single:
            low, edge = float(np.float32(low)), float(np.float32(edge))
        with np.errstate(over="ignore"):  # a point beyond the type's range is outside
            cell = np.floor((points[:, axis].astype(kind) - kind.type(low)) / kind.type(edge))
        inside &= (cell >= 0) & (cell < size)
        # Outside cells may be too large for int64; they are dropped below, so any value serves.
        key = key * size + np.clip(cell, 0, size - 1).astype(np.int64)
    return inside, key[inside]


def _means(
    points: npt.NDArray[Any],
    rows: npt.NDArray[np.intp],
    voxel: npt.NDArray[np.intp],
    counts: npt.NDArray[np.int64],
) -> npt.NDArray[np.float64]:
    """The mean of all points of each voxel: those at `rows`, which belong to the voxels `voxel`."""
    means = np.empty((len(counts), points.shape[1]), np.float64)
    for column in range(points.shape[1]):
        weights = points[rows, column].astype(np.float64)
        means[:, column] = np.bincount(voxel, weights=weights, minlength=len(counts)) / counts
    return means


def _first_means(
    points: npt.NDArray[Any],
    rows: npt.NDArray[np.intp],
    starts: npt.NDArray[np.intp],
    counts: npt.NDArray[np.int64],
) -> npt.NDArray[np.float32]:
    """The mean of the first `counts` points of each voxel, whose points are at ``rows[starts:]``, in float32.

    The sum adds one point after the other, as spconv does: its rounding depends on the order.
    """
    sums: npt.NDArray[np.float32] = np.zeros((len(counts), points.shape[1]), np.float32)
    with np.errstate(over="ignore"):  # `_check_limit` reports it
        for number in range(int(counts.max(initial=0))):
            having = np.flatnonzero(counts > number)
            sums[having] += points[rows[starts[having] + number]].astype(np.float32)
        sums /= counts[:, None].astype(np.float32)
    return sums


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
    if points.ndim != 2 or points.shape[1] < 3 or points.dtype.kind != "f":
        raise LidarError(
            f"Points must be floats [N, >= 3] with x, y, z in metres first, got {points.dtype.name} "
            f"{list(points.shape)}."
        )
    finite = np.isfinite(points)
    if not finite.all():
        bad = np.flatnonzero(~finite.all(axis=1))
        raise LidarError(
            f"Points must be finite, got NaN or infinity in {len(bad)} of {len(points)} points, first in "
            f"point {bad[0]}: {points[bad[0]].tolist()}. Remove them with "
            "points[np.isfinite(points).all(axis=1)], and check that the file was read in the right format."
        )
    return points
