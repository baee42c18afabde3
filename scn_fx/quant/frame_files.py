# SPDX-License-Identifier: Apache-2.0
"""Calibration frames from files: raw points, which are voxelised, or voxels as they are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from scn_fx.errors import LidarError
from scn_fx.lidar import NetworkGrid, VoxelGrid, parse_grid, read_sweep, voxelize_from
from scn_fx.lidar.frame_paths import frame_paths, read_voxels

__all__ = ["FrameFiles"]


@dataclass(frozen=True)
class FrameFiles:
    """A sized iterable of (features float16 [N, C], indices int32 [N, ndim + 1]) arrays, read one at a time.

    Attributes:
        files: for each frame, its point file, or the pair of its feature and index file (an .npz is both).
        grid: the grid that points are voxelised in; None serves voxels alone.
        point_format: format of raw point files, see `scn_fx.lidar.read_points`; None guesses for each file.
        axes: order of the index columns behind the batch that the network wants, "zyx" or "xyz". Indices in
            files are taken as they are.
        ndim: dimensions of the network: voxels of points are (batch, y, x) in two.
    """

    files: tuple[tuple[Path, ...], ...]
    grid: VoxelGrid | None = None
    point_format: str | None = None
    axes: str = "zyx"
    ndim: int = 3

    @classmethod
    def find(
        cls,
        path: str | Path,
        *,
        grid: VoxelGrid | str | None = None,
        point_format: str | None = None,
        limit: int | None = None,
        subfolders: bool = True,
    ) -> FrameFiles:
        """The frames of a file, a folder with its subfolders, or a list: see `scn_fx.lidar.frame_paths`.

        `grid` may be a text for `scn_fx.lidar.parse_grid`. `limit` keeps that many frames, spread evenly.
        Raises LidarError if there are none, half of a pair is missing, or the text names no grid.
        """
        if isinstance(grid, str):
            grid = parse_grid(grid)
        if limit is not None and limit < 1:
            raise LidarError(f"The number of frames must be at least 1, got {limit}.")
        frames = frame_paths(path, subfolders=subfolders)
        found = cls(tuple(frames), grid, point_format)
        return found if limit is None else found.spread(limit)

    def spread(self, limit: int) -> FrameFiles:
        """At most `limit` of the frames, spread evenly over them."""
        if limit >= len(self.files):
            return self
        chosen = np.linspace(0, len(self.files) - 1, limit).round().astype(int)
        return replace(self, files=tuple(self.files[i] for i in chosen))

    @property
    def has_points(self) -> bool:
        """Whether any frame has to be voxelised."""
        return any(len(files) == 1 for files in self.files)

    def for_network(self, network: NetworkGrid, grid: VoxelGrid | None) -> FrameFiles:
        """The same frames for a network: points are voxelised in its grid, or in `grid` where it has none.

        Raises GridError if `grid` contradicts the network's, or points have no grid at all. Voxels in files
        do not say theirs, so that nothing of them can be checked here.
        """
        if grid is not None or self.has_points:
            grid = network.require(grid, "--grid (grid=)")
        return replace(self, grid=grid, axes=network.axes, ndim=network.ndim)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        return self._read(self.files[number])

    def __iter__(self) -> Iterator[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
        return (self._read(files) for files in self.files)

    def _read(self, files: tuple[Path, ...]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        if len(files) == 2:
            return read_voxels(files)
        (file,) = files
        if self.grid is None:
            raise LidarError(f"{file} holds points: expected a voxel grid for them, got none. Pass grid=.")
        features, indices = voxelize_from(file, read_sweep(file, self.point_format), self.grid)
        return features, NetworkGrid("the network", axes=self.axes, ndim=self.ndim).columns(indices)
