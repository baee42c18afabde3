# SPDX-License-Identifier: Apache-2.0
"""How many of the calibration frames really differ: repeated frames and consecutive sweeps add nothing.

Two frames are compared by the coarse cells that they occupy: shared cells over all cells of either (Jaccard
index), less what chance gives at their density. In cells of 8 x 32 x 32 voxels (z, y, x; about a metre or
two), sweeps of a driving car 0.1 s apart came to 0.62 (median of 154), 0.2 s apart to 0.46 and 1 s apart to
0.25; frames of different places to at most 0.35.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch

__all__ = ["ALIKE", "FrameVariety"]

ALIKE = 0.4
"""Frames that share this much are alike."""

_CELL = (8, 32, 32)
# In a coarse or small grid these cells are too large, and few; in a crowded one, all are occupied. They are
# halved until there are about as many as in a detector's grid (12,000), at most this share of them occupied.
_ENOUGH = 5_000
_CROWDED = 0.25
# As many frames are remembered to compare with: memory stays the same over any number of frames.
_REMEMBERED = 1000


@dataclass(frozen=True)
class _Cells:
    bits: int
    occupied: int
    density: float


class FrameVariety:
    """Counts frames, and those that are unlike all before."""

    def __init__(self) -> None:
        self.frames = 0
        self.distinct = 0
        """Frames that are alike to none before (to none of the last 1,000 such)."""
        self._grid: tuple[np.ndarray, np.ndarray] | None = None
        self._remembered: deque[_Cells] = deque(maxlen=_REMEMBERED)

    def add(self, indices: torch.Tensor) -> None:
        """Count a frame of sites int32 [N, 4] (batch, z, y, x), or of fewer axes."""
        self.frames += 1
        if not len(indices):
            return
        sites = indices[:, 1:].cpu().numpy()
        # Cells have three axes; those that the network lacks have one voxel.
        sites = np.pad(sites, ((0, 0), (3 - sites.shape[1], 0)))
        self._remember(self._cells(sites))

    def _remember(self, cells: _Cells) -> None:
        if all(_similarity(cells, other) < ALIKE for other in self._remembered):
            self._remembered.append(cells)
            self.distinct += 1

    def merge(self, other: FrameVariety) -> None:
        """Take in the frames that another process has counted.

        Where the first frames of both had other extents, cells cannot be compared: all count as distinct.
        """
        self.frames += other.frames
        if other._grid is None:
            return
        mine = self._grid = self._grid or other._grid
        if any((own != theirs).any() for own, theirs in zip(mine, other._grid, strict=True)):
            self.distinct += other.distinct
            return
        self.distinct += other.distinct - len(other._remembered)
        for cells in other._remembered:
            self._remember(cells)

    def state(self) -> dict[str, Any]:
        """All of it as numpy arrays and plain numbers; `from_state` takes them back."""
        grid = [] if self._grid is None else [part.tolist() for part in self._grid]
        size = -(-prod(grid[1]) // 8) if grid else 0
        rows = [np.frombuffer(cells.bits.to_bytes(size, "big"), np.uint8) for cells in self._remembered]
        cells = np.stack(rows) if rows else np.zeros((0, size), np.uint8)
        return {"frames": self.frames, "distinct": self.distinct, "grid": grid, "cells": cells}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> FrameVariety:
        """The counts of a `state`. Raises ValueError, KeyError or TypeError if it is damaged."""
        made = cls()
        made.frames, made.distinct = int(state["frames"]), int(state["distinct"])
        if state["grid"]:
            cell, shape = (np.array([int(size) for size in part]) for part in state["grid"])
            made._grid = cell, shape
            total = prod(shape.tolist())
            for row in np.asarray(state["cells"], np.uint8):
                count = int(np.unpackbits(row).sum())
                made._remembered.append(_Cells(int.from_bytes(row.tobytes(), "big"), count, count / total))
        return made

    def finding(self) -> str | None:
        """What to warn of, if anything: one frame alone, or mostly frames that are alike."""
        advice = "Take a few hundred key frames from different places and hours."
        if self.frames == 1:
            return f"Calibrated on one frame: ranges fit that one scene. {advice}"
        if self.distinct <= self.frames / 2:
            return (
                f"Only {self.distinct} of {self.frames} frames differ from those before them; the others "
                f"share at least {ALIKE:.0%} of their occupied cells with one of these (repeated frames, "
                f"consecutive sweeps, a standing car). {advice}"
            )
        return None

    def _cells(self, sites: np.ndarray) -> _Cells:
        if self._grid is None:
            self._grid = _coarse(sites)
        cell, shape = self._grid
        occupied = _occupied(sites, cell, shape)
        count = int(occupied.sum())
        return _Cells(int.from_bytes(np.packbits(occupied).tobytes(), "big"), count, count / len(occupied))


def _coarse(sites: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cell edges in voxels, and the number of cells along each axis, from the first frame."""
    cell, extent = np.array(_CELL), sites.max(axis=0) + 1
    while True:
        shape = -(-extent // cell)
        enough = prod(shape.tolist()) >= _ENOUGH
        if (enough and _occupied(sites, cell, shape).mean() <= _CROWDED) or (cell == 1).all():
            return cell, shape
        cell = np.maximum(cell // 2, 1)


def _occupied(sites: np.ndarray, cell: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """bool [cells]; a site beyond the first frame's extent counts for the outermost cell."""
    z, y, x = (
        np.minimum(sites[:, axis] // np.int32(cell[axis]), np.int32(shape[axis] - 1)) for axis in range(3)
    )
    occupied = np.zeros(prod(shape.tolist()), bool)
    occupied[(z * np.int64(shape[1]) + y) * np.int64(shape[2]) + x] = True
    return occupied


def _similarity(a: _Cells, b: _Cells) -> float:
    """Jaccard index of two cell sets, less that of two random sets of their densities; 1 for equal sets."""
    both = (a.bits & b.bits).bit_count()
    shared = both / (a.occupied + b.occupied - both)
    chance = a.density * b.density / (a.density + b.density - a.density * b.density)
    return 1.0 if chance >= 1.0 else (shared - chance) / (1.0 - chance)
