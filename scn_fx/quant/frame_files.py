# SPDX-License-Identifier: Apache-2.0
"""Calibration frames from files: raw points, which are voxelised, or voxels as they are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from scn_fx.errors import LidarError
from scn_fx.lidar import NetworkGrid, VoxelGrid, parse_grid, read_sweep, read_tensor, voxelize_from

__all__ = ["FrameFiles"]

_FEATURES = ".features.tensor"


@dataclass(frozen=True)
class FrameFiles:
    """A sized iterable of (features float16 [N, C], indices int32 [N, ndim + 1]) arrays, read one at a time.

    Attributes:
        files: for each frame, its point file, or the pair of its feature and index file.
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
    ) -> FrameFiles:
        """The frames of a file or of a folder (its `*.bin` and `*.tensor` files by name).

        `NAME.features.tensor` beside `NAME.indices*.tensor` is one voxelised frame; every other file holds
        points. `grid` may be a text for `scn_fx.lidar.parse_grid`. `limit` keeps that many frames, spread
        evenly. Raises LidarError if there are none, half of a pair is missing, or the text names no grid.
        """
        if isinstance(grid, str):
            grid = parse_grid(grid)
        if limit is not None and limit < 1:
            raise LidarError(f"The number of frames must be at least 1, got {limit}.")
        root = Path(path)
        if not os.path.exists(root):
            raise LidarError(f"{root}: expected a frame file or a folder of them, but there is nothing.")
        is_folder = os.path.isdir(root)
        try:
            folder = sorted((root if is_folder else root.parent).iterdir())
        except OSError as error:
            raise LidarError(
                f"{root}: expected a folder that can be listed, got: {error.strerror}. Check its permissions."
            ) from error
        chosen = [p for p in folder if p.suffix in (".bin", ".tensor")] if is_folder else [root]
        frames: list[tuple[Path, ...]] = []
        for file in chosen:
            if file.name.endswith(_FEATURES):
                frames.append((file, _partner(file, folder)))
            elif ".indices" not in file.name:
                frames.append((file,))
        if not frames:
            raise LidarError(
                f"{root}: expected frames as .bin or .tensor files (points, or NAME{_FEATURES} beside "
                "NAME.indices.tensor), found none."
            )
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
            return read_tensor(files[0]), read_tensor(files[1])
        (file,) = files
        if self.grid is None:
            raise LidarError(f"{file} holds points: expected a voxel grid for them, got none. Pass grid=.")
        features, indices = voxelize_from(file, read_sweep(file, self.point_format), self.grid)
        return features, NetworkGrid("the network", axes=self.axes, ndim=self.ndim).columns(indices)


def _partner(features: Path, folder: list[Path]) -> Path:
    start = features.name.removesuffix(_FEATURES) + ".indices"
    found = [p for p in folder if p.name.startswith(start) and p.suffix == ".tensor"]
    if len(found) != 1:
        raise LidarError(
            f"{features}: expected one file {start}*.tensor beside it, found "
            f"{', '.join(p.name for p in found) or 'none'}."
        )
    return found[0]
