# SPDX-License-Identifier: Apache-2.0
"""Voxelised frames ready for a network: the embedded synthetic one, and real ones from a folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from scn_fx.errors import LidarError
from scn_fx.lidar.grids import CENTERPOINT_GRID, KITTI_GRID, VoxelGrid
from scn_fx.lidar.readers import read_sweep
from scn_fx.lidar.sites import SiteIndices
from scn_fx.lidar.synthetic import synthetic_points
from scn_fx.lidar.tensor_file import read_tensor
from scn_fx.lidar.voxels import Voxels, voxelize

__all__ = ["DATA_VARIABLE", "Frame", "demo_frames", "embedded_frame", "real_frames"]

DATA_VARIABLE = "SCN_FX_DATA"
"""The environment variable that names a folder of real frames."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One voxelised frame; `features, indices = frame` takes the two arrays a network wants."""

    name: str
    """Short name for tables and files."""
    features: npt.NDArray[Any]
    """float16 or float32 [N, C]: means of x, y, z in metres, intensity, and (C = 5) time lag in seconds."""
    indices: npt.NDArray[np.int32]
    """int32 [N, 4]: (batch, z, y, x). As `SiteIndices` they know the frame's grid."""
    grid: VoxelGrid
    source: str
    """Where it comes from, for people."""

    def __post_init__(self) -> None:
        if self.features.ndim != 2 or self.features.dtype not in (np.float16, np.float32):
            raise LidarError(
                f"Frame {self.name}: expected features as float16 or float32 [N, C], got "
                f"{self.features.dtype.name} {list(self.features.shape)}. Convert them first."
            )
        if self.indices.shape != (len(self.features), 4) or self.indices.dtype != np.int32:
            raise LidarError(
                f"Frame {self.name}: expected indices as int32 [{len(self.features)}, 4] (batch, z, y, x) "
                f"beside {len(self.features)} rows of features, got {self.indices.dtype.name} "
                f"{list(self.indices.shape)}. Check that both arrays belong to the same frame."
            )
        outside = (self.indices < 0).any(axis=1)
        outside |= (self.indices[:, 1:] >= np.array(self.grid.spatial_shape)).any(axis=1)
        if outside.any():
            row = int(np.flatnonzero(outside)[0])
            raise LidarError(
                f"Frame {self.name}: expected indices inside the grid {list(self.grid.spatial_shape)} (z, "
                f"y, x), got {int(outside.sum())} outside, first row {row}: {self.indices[row].tolist()}. "
                "Voxelise with the grid of the network."
            )
        object.__setattr__(self, "indices", SiteIndices.of(self.indices, self.grid))

    def __iter__(self) -> Iterator[npt.NDArray[Any]]:
        return iter((self.features, self.indices))

    def __len__(self) -> int:
        return len(self.indices)


@lru_cache(maxsize=2)
def _synthetic_voxels(seed: int) -> Voxels:
    return voxelize(synthetic_points(seed), CENTERPOINT_GRID)


def embedded_frame(seed: int = 0) -> Frame:
    """The synthetic ten-sweep frame in CenterPoint's grid: float16 [N, 5] of about 80,000 voxels.

    Needs no data; the same seed gives the same frame, and other seeds give other streets. The arrays are the
    caller's own.
    """
    features, indices = _synthetic_voxels(seed)
    name = "synthetic" if seed == 0 else f"synthetic-{seed}"
    source = f"synthetic spinning LiDAR, ten sweeps, seed {seed}"
    return Frame(name, features.copy(), indices.copy(), CENTERPOINT_GRID, source)


def _nuscenes_voxels(folder: Path) -> Frame:
    features = read_tensor(folder / "nuscenes_voxels.features.tensor")
    indices = read_tensor(folder / "nuscenes_voxels.indices_zyx.tensor")
    return Frame(
        "nuscenes_voxels",
        features,
        indices,
        CENTERPOINT_GRID,
        "nuScenes, ten sweeps, voxelised by the data's authors",
    )


def _nuscenes_ten_sweeps(folder: Path) -> Frame:
    points = read_sweep(folder / "nuscenes_ten_sweeps.bin", "float16x5")
    features, indices = voxelize(points, CENTERPOINT_GRID)
    return Frame("nuscenes_ten_sweeps", features, indices, CENTERPOINT_GRID, "nuScenes, ten sweeps")


def _nuscenes_single_sweep(folder: Path) -> Frame:
    points = read_sweep(folder / "nuscenes_single_sweep.bin", "nuscenes")
    features, indices = voxelize(points, CENTERPOINT_GRID)
    source = "nuScenes, one sweep; its ring column is replaced by time lag 0"
    return Frame("nuscenes_single_sweep", features, indices, CENTERPOINT_GRID, source)


def _kitti(folder: Path) -> Frame:
    features, indices = voxelize(read_sweep(folder / "kitti_000008.bin", "kitti"), KITTI_GRID)
    return Frame(
        "kitti_000008", features, indices, KITTI_GRID, "KITTI, front view, four columns (no time lag)"
    )


_KNOWN: tuple[tuple[tuple[str, ...], Callable[[Path], Frame]], ...] = (
    (("nuscenes_voxels.features.tensor", "nuscenes_voxels.indices_zyx.tensor"), _nuscenes_voxels),
    (("nuscenes_ten_sweeps.bin",), _nuscenes_ten_sweeps),
    (("nuscenes_single_sweep.bin",), _nuscenes_single_sweep),
    (("kitti_000008.bin",), _kitti),
)


def real_frames(folder: str | Path | None = None) -> list[Frame]:
    """The real frames in `folder` (default: the folder that the environment variable SCN_FX_DATA names).

    Known files, each used if it is there:

    - `nuscenes_voxels.features.tensor` with `nuscenes_voxels.indices_zyx.tensor`: voxels, kept in the
      files' order;
    - `nuscenes_ten_sweeps.bin`: float16 x 5, CenterPoint's grid;
    - `nuscenes_single_sweep.bin`: float32 x 5; the fifth column is the ring, replaced by time lag 0;
    - `kitti_000008.bin`: float32 x 4, SECOND's KITTI grid, so four feature columns instead of five.

    Raises `LidarError` when no folder is named, it does not exist, holds none of these files or half of the
    pair, or a file is damaged.
    """
    named = folder if folder is not None else os.environ.get(DATA_VARIABLE)
    if not named:
        raise LidarError(
            "Expected a folder of real frames, got none. Pass one, or set the environment variable "
            f"{DATA_VARIABLE}."
        )
    path = Path(named)
    if not path.is_dir():
        raise LidarError(
            f"Expected a folder of real frames, got {str(path)!r}, which is no folder. Check the path"
            f"{'' if folder is not None else f' in {DATA_VARIABLE}'}."
        )
    frames = []
    for names, load in _KNOWN:
        there = [name for name in names if (path / name).is_file()]
        if there and len(there) < len(names):
            missing = [name for name in names if name not in there]
            raise LidarError(
                f"{path}: expected {' and '.join(names)}, got no {missing[0]}. Put both files there."
            )
        if there:
            frames.append(load(path))
    if not frames:
        known = ", ".join(name for names, _ in _KNOWN for name in names)
        raise LidarError(f"{path}: expected at least one of {known}, got none of them. Check the path.")
    return frames


def demo_frames() -> list[Frame]:
    """The embedded frame, followed by the real ones if the environment variable SCN_FX_DATA names a folder.

    Raises `LidarError` when SCN_FX_DATA is set but not usable: a typing error must not go unnoticed.
    """
    frames = [embedded_frame()]
    if os.environ.get(DATA_VARIABLE):
        frames += real_frames()
    return frames
