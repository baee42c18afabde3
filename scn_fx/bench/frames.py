# SPDX-License-Identifier: Apache-2.0
"""The frames of a benchmark: all of one grid and width, so that one network runs them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from scn_fx.errors import ArgumentError
from scn_fx.lidar import (
    CENTERPOINT_GRID,
    DATA_VARIABLE,
    Frame,
    VoxelGrid,
    embedded_frame,
    synthetic_points,
    voxelize,
)

__all__ = ["FRAME_COLUMNS", "SMALL_GRID", "FrameSet", "find_frames"]

FRAME_COLUMNS = 5
"""x, y, z, intensity, time lag: what the benchmark's network takes."""
SMALL_GRID = (64, 64, 40)
"""Voxels along (x, y, z) of the small network."""


@dataclass(frozen=True)
class FrameSet:
    """Frames by ascending number of voxels, and what was left out."""

    frames: tuple[Frame, ...]
    skipped: tuple[str, ...] = ()
    """A sentence about each frame that this network cannot run."""

    def select(self, names: Sequence[str]) -> FrameSet:
        """The frames called `names`, in that order; all if there are none. ArgumentError for other names."""
        if not names:
            return self
        found = {frame.name: frame for frame in self.frames}
        unknown = [name for name in names if name not in found]
        if unknown:
            raise ArgumentError(f"There is no frame {unknown[0]!r}; there are {', '.join(found)}.")
        return replace(self, frames=tuple(found[name] for name in dict.fromkeys(names)))


def find_frames(folder: str | Path | None = None, *, small: bool = False) -> FrameSet:
    """Real frames of `folder` (default: what the variable SCN_FX_DATA names), or else synthetic ones.

    A folder holds raw sweeps (`*.bin`), voxelised in CenterPoint's grid, or voxels as
    `NAME.features.tensor` beside `NAME.indices*.tensor`. Frames without the five columns are left out.
    `small` makes a small frame for the small network, whatever the folder. Raises LidarError for a folder
    without any frame that serves, or a damaged one.
    """
    if small:
        return FrameSet((_small_frame(),))
    named = folder if folder is not None else os.environ.get(DATA_VARIABLE)
    if named:
        return _from_folder(Path(named))
    features, indices = voxelize(synthetic_points(0, sweeps=1), CENTERPOINT_GRID)
    source = "synthetic spinning LiDAR, one sweep"
    sweep = Frame("synthetic_single_sweep", features, indices, CENTERPOINT_GRID, source)
    return FrameSet((sweep, embedded_frame()))


def _from_folder(folder: Path) -> FrameSet:
    from scn_fx.errors import LidarError
    from scn_fx.quant.frame_files import FrameFiles

    frames, skipped = [], []
    for files in FrameFiles.find(folder, subfolders=False).files:
        name = files[0].name.removesuffix(".features.tensor").removesuffix(".tensor").removesuffix(".bin")
        features, indices = next(iter(FrameFiles((files,), CENTERPOINT_GRID)))
        if features.ndim == 2 and features.shape[1] != FRAME_COLUMNS:
            skipped.append(
                f"{name}: {features.shape[1]} columns, but the benchmark's network takes {FRAME_COLUMNS}."
            )
            continue
        frames.append(Frame(name, features, indices, CENTERPOINT_GRID, str(files[0])))
    if not frames:
        raise LidarError(
            f"{folder}: expected frames of {FRAME_COLUMNS} columns (x, y, z, intensity, time lag), got none. "
            f"{' '.join(skipped)}"
        )
    return FrameSet(tuple(sorted(frames, key=len)), tuple(skipped))


def _small_frame() -> Frame:
    from scn_fx.zoo import demo_frame

    features, indices = demo_frame(0, 1000, grid=SMALL_GRID)
    x, y, z = SMALL_GRID
    grid = VoxelGrid((0.0, 0.0, 0.0, float(x), float(y), float(z)), (1.0, 1.0, 1.0))
    return Frame("small", features.half().numpy(), indices.numpy(), grid, "a ground and two walls")
