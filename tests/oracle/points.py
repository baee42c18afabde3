# SPDX-License-Identifier: Apache-2.0
"""Voxels of points, point by point in Python: cells in numpy's scalars, means in fractions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import floor, trunc
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Cells", "near_faces", "voxels"]

Cell = tuple[int, int, int]


@dataclass(frozen=True)
class Cells:
    """A grid as this oracle has it: `low` and `edge` along (x, y, z), `size` in cells."""

    low: tuple[float, float, float]
    edge: tuple[float, float, float]
    size: tuple[int, int, int]
    float64: bool = False
    max_points: int | None = None

    def cell(self, point: Sequence[Any]) -> Cell | None:
        """(z, y, x) of a point of numpy scalars; None outside."""
        found = []
        for value, low, edge, size in zip(point[:3], self.low, self.edge, self.size, strict=True):
            kind: Any = np.float64 if self.float64 or value.dtype == np.float64 else np.float32
            if not self.float64:
                low, edge = float(np.float32(low)), float(np.float32(edge))
            with np.errstate(over="ignore"):
                quotient = (kind(value) - kind(low)) / kind(edge)
            if not 0 <= quotient < size:
                return None
            found.append(floor(quotient))
        x, y, z = found
        return z, y, x


def _mean(values: Sequence[Any], most: int | None) -> np.float32:
    if most is not None:
        total = np.float32(0)
        for value in values[:most]:
            total = np.float32(total + np.float32(value))
        return np.float32(total / np.float32(min(most, len(values))))
    whole = sum(trunc(Fraction(float(value)) * 2**64) for value in values)
    # float() of a fraction rounds once, ties to even
    return np.float32(float(Fraction(whole, 2**64)) / len(values))


def voxels(
    points: npt.NDArray[Any], grid: Cells
) -> tuple[list[Cell], npt.NDArray[np.float32], list[int], int]:
    """Ascending cells (z, y, x), float32 means [N, C], points of each cell, and points outside."""
    members: dict[Cell, list[Any]] = {}
    outside = 0
    for point in points:
        cell = grid.cell(point)
        if cell is None:
            outside += 1
        else:
            members.setdefault(cell, []).append(point)
    cells = sorted(members)
    means = [[_mean(column, grid.max_points) for column in zip(*members[c], strict=True)] for c in cells]
    made = np.array(means, np.float32).reshape(len(cells), points.shape[1])
    return cells, made, [len(members[c]) for c in cells], outside


def near_faces(
    seed: int, count: int, grid: Cells, columns: int, dtype: Any, *, far: float = 0.05
) -> npt.NDArray[Any]:
    """Points on and one step beside the faces of cells, and anywhere, some outside; columns of many sizes."""
    rng = np.random.default_rng(seed)
    low, edge, size = (np.array(values) for values in (grid.low, grid.edge, grid.size))
    kind = np.float64 if dtype == np.float64 else np.float32
    faces = (low + rng.integers(0, size + 1, (count, 3)) * edge).astype(kind)
    step = rng.integers(-1, 2, (count, 3))
    beside = np.nextafter(faces, np.where(step > 0, np.inf, -np.inf).astype(kind))
    faces = np.where(step == 0, faces, beside)
    spread = low + (rng.random((count, 3)) * (1 + 2 * far) - far) * size * edge
    position = np.where(rng.random((count, 3)) < 0.4, faces, spread)
    others = rng.standard_normal((count, columns - 3)) * 10.0 ** rng.integers(-25, 4, (count, columns - 3))
    points = np.hstack([position, others])
    # Most cells have several points, one has many.
    crowd = rng.random(count) < 0.15
    if count:
        points[crowd, :3] = spread[0]
    with np.errstate(over="ignore"):
        return points.astype(dtype)
