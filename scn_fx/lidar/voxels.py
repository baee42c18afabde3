# SPDX-License-Identifier: Apache-2.0
"""From points to voxels: the mean of all points of each occupied voxel, as sparse networks take them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from scn_fx.errors import LidarError

__all__ = ["CENTERPOINT_GRID", "GRIDS", "KITTI_GRID", "VoxelGrid", "Voxels", "collate", "voxelize"]


@dataclass(frozen=True)
class VoxelGrid:
    """A regular grid of voxels over a box of space."""

    point_range: tuple[float, float, float, float, float, float]
    """Lower and upper corner (x, y, z, x, y, z) in metres; a point is inside when lower <= point < upper."""
    voxel_size: tuple[float, float, float]
    """Edges of a voxel in metres: (x, y, z)."""
    extra_z: int = 1
    """Empty slices above the box.

    CenterPoint and SECOND give their encoder one slice more than the box has, so that its strides
    leave two slices in the end (41, 21, 11, 5, 2).
    """

    def __post_init__(self) -> None:
        if len(self.point_range) != 6 or len(self.voxel_size) != 3:
            raise LidarError(
                "A grid needs six range values (x, y, z, x, y, z) and three voxel edges (x, y, z), "
                f"got {list(self.point_range)} and {list(self.voxel_size)}."
            )
        if not np.isfinite([*self.point_range, *self.voxel_size]).all() or self.extra_z < 0:
            raise LidarError(
                f"A grid needs finite numbers and extra_z >= 0, got range {list(self.point_range)}, "
                f"voxel {list(self.voxel_size)} and extra_z {self.extra_z}."
            )
        for axis in range(3):
            low, high, edge = self.point_range[axis], self.point_range[axis + 3], self.voxel_size[axis]
            if edge <= 0 or high <= low:
                raise LidarError(
                    f"Axis {'xyz'[axis]} needs lower < upper and a voxel edge > 0, got {low:g} to {high:g} m "
                    f"in steps of {edge:g} m."
                )
            # A partial voxel at the upper end would be smaller than all others; 1e-3 forgives decimal
            # rounding.
            steps = (high - low) / edge
            if abs(steps - round(steps)) > 1e-3 or round(steps) < 1:
                raise LidarError(
                    f"Axis {'xyz'[axis]} needs a whole number of voxels, got {steps:.4f} ({low:g} to "
                    f"{high:g} m in steps of {edge:g} m). Change the range or the voxel size."
                )

    @property
    def box_shape(self) -> tuple[int, int, int]:
        """Number of voxels (z, y, x) inside the range, without the extra slices."""
        low, high = self.point_range[:3], self.point_range[3:]
        x, y, z = (round((b - a) / edge) for a, b, edge in zip(low, high, self.voxel_size, strict=True))
        return z, y, x

    @property
    def spatial_shape(self) -> tuple[int, int, int]:
        """The grid a network is built for, (z, y, x), with the extra slices."""
        z, y, x = self.box_shape
        return z + self.extra_z, y, x


CENTERPOINT_GRID = VoxelGrid((-54.0, -54.0, -5.0, 54.0, 54.0, 3.0), (0.075, 0.075, 0.2))
"""CenterPoint on nuScenes: 41 x 1440 x 1440."""
KITTI_GRID = VoxelGrid((0.0, -40.0, -3.0, 70.4, 40.0, 1.0), (0.05, 0.05, 0.1))
"""SECOND on KITTI as OpenPCDet configures it: 41 x 1600 x 1408."""
GRIDS: dict[str, VoxelGrid] = {"centerpoint": CENTERPOINT_GRID, "kitti": KITTI_GRID}
"""The presets by name."""


@dataclass(frozen=True, eq=False)
class Voxels:
    """The occupied voxels of one frame; `features, indices = voxels` takes the two arrays a network wants."""

    features: npt.NDArray[Any]
    """float16 or float32 [N, C]: the mean of the voxel's points, column by column."""
    indices: npt.NDArray[np.int32]
    """int32 [N, 4] (batch, z, y, x), ascending, no duplicates, batch 0."""
    counts: npt.NDArray[np.int64]
    """int64 [N]: points in each voxel."""
    dropped: int
    """Points outside the grid."""

    def __iter__(self) -> Iterator[npt.NDArray[Any]]:
        return iter((self.features, self.indices))

    def __len__(self) -> int:
        return len(self.indices)


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


def voxelize(points: npt.NDArray[Any], grid: VoxelGrid, *, dtype: npt.DTypeLike = np.float16) -> Voxels:
    """The mean of all points in each occupied voxel of `grid`.

    `points` are floats [N, C >= 3] with x, y, z in metres first. The voxel of a point is
    ``floor((position - lower) / edge)`` in float64, so a point on a face belongs to the voxel above it.
    Sums are float64 and every point counts: there is no limit on points per voxel or on voxels, nothing is
    truncated. `dtype` is that of the features, float16 (what libspconv takes) or float32.

    Returns `Voxels`, in ascending (z, y, x) order. Points outside the range are dropped and counted; no
    points in range is a valid frame of zero voxels. Raises `LidarError` for non-finite values, other
    shapes, and means that float16 cannot hold.
    """
    points = _checked(np.asarray(points))
    out_dtype = np.dtype(dtype)
    if out_dtype not in (np.dtype(np.float16), np.dtype(np.float32)):
        raise LidarError(f"Voxel features are float16 or float32, got dtype={out_dtype.name}.")

    # Column by column: contiguous float64 columns are several times faster here than rows of three.
    key = np.zeros(len(points), np.int64)
    inside = np.ones(len(points), bool)
    for axis, size in zip((2, 1, 0), grid.box_shape, strict=True):
        cell = np.floor((points[:, axis].astype(np.float64) - grid.point_range[axis]) / grid.voxel_size[axis])
        inside &= (cell >= 0) & (cell < size)
        # Outside cells may be too large for int64; they are dropped below, so any value serves.
        key = key * size + np.clip(cell, 0, size - 1).astype(np.int64)
    key = key[inside]

    order = np.argsort(key, kind="stable")
    key = key[order]
    first = np.ones(len(key), bool)
    first[1:] = key[1:] != key[:-1]
    starts = np.flatnonzero(first)
    counts = np.diff(np.append(starts, len(key))).astype(np.int64)
    voxel = np.cumsum(first) - 1
    rows = np.flatnonzero(inside)[order]

    means = np.empty((len(starts), points.shape[1]), np.float64)
    for column in range(points.shape[1]):
        weights = points[rows, column].astype(np.float64)
        means[:, column] = np.bincount(voxel, weights=weights, minlength=len(starts)) / counts
    limit = float(np.finfo(out_dtype).max)
    if means.size and np.abs(means).max() > limit:
        row, column = (int(i) for i in np.argwhere(np.abs(means) > limit)[0])
        raise LidarError(
            f"Voxel features must fit in {out_dtype.name} (at most {limit:g}), got {means[row, column]:g} "
            f"in column {column}. Scale that column, or pass dtype=np.float32."
        )

    indices = np.zeros((len(starts), 4), np.int32)
    indices[:, 1], rest = np.divmod(key[starts], grid.box_shape[1] * grid.box_shape[2])
    indices[:, 2], indices[:, 3] = np.divmod(rest, grid.box_shape[2])
    return Voxels(means.astype(out_dtype), indices, counts, len(points) - len(key))


def collate(
    frames: Iterable[Iterable[npt.NDArray[Any]]],
) -> tuple[npt.NDArray[Any], npt.NDArray[np.int32]]:
    """Join frames, each (features [N, C], indices [N, 4]), into one batch; frame i gets batch index i.

    Takes `Voxels`, `Frame`s or plain pairs. Returns (features [ΣN, C], int32 indices [ΣN, 4]). A frame may
    have zero voxels, so the batch size is the number of frames, not the largest index plus one. Raises
    `LidarError` when there are no frames, a frame already holds several batch indices, or widths or dtypes
    differ.
    """
    pairs = []
    for i, frame in enumerate(frames):
        features, indices = frame
        if features.ndim != 2 or indices.shape != (len(features), 4):
            raise LidarError(
                f"Frame {i}: expected features [N, C] and indices [N, 4], got {list(features.shape)} and "
                f"{list(indices.shape)}. Voxelise each frame on its own first."
            )
        if len(indices) and (indices[:, 0] != indices[0, 0]).any():
            raise LidarError(
                f"Frame {i}: expected one batch index, got {len(np.unique(indices[:, 0]))}. It is a batch "
                "already: pass its frames one by one."
            )
        pairs.append((features, indices))
    if not pairs:
        raise LidarError("Expected at least one frame to collate, got none.")
    kinds = {(features.shape[1], features.dtype.name) for features, _ in pairs}
    if len(kinds) > 1:
        found = ", ".join(f"{width} x {name}" for width, name in sorted(kinds))
        raise LidarError(
            f"Expected frames of one width and dtype, got {found}. Read them with the same columns."
        )
    joined = np.concatenate([indices for _, indices in pairs]).astype(np.int32)
    joined[:, 0] = np.repeat(np.arange(len(pairs), dtype=np.int32), [len(indices) for _, indices in pairs])
    return np.concatenate([features for features, _ in pairs]), joined
