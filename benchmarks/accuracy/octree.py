# SPDX-License-Identifier: Apache-2.0
"""A sweep as RENO codes it: occupancy codes of an octree, coarse to fine.

Points are rounded to cells of `cell_mm`; a parent is a coordinate shifted right by one, and its occupancy
code (1 to 255) has bit x + 2 y + 4 z set for the child with these lowest bits. Levels end with the first that
has fewer than 64 cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

__all__ = ["Octree", "octree"]

_ORIGIN_MM = 131072
_FEWEST = 64


@dataclass(frozen=True, eq=False)
class Octree:
    """The levels of one sweep, coarse to fine, each a sample of one batch; the finest cells have no code.

    Attributes:
        indices: int32 [N, 4] (level, z, y, x), the cells that have codes.
        codes: int64 [N], 1 to 255.
        coded: int64 [M], rows of `indices` whose codes are predicted (all but the coarsest level).
        parents: int64 [M], rows of `indices` that hold their parents.
        children: int64 [M], which child of its parent each is, 0 to 7.
        points: number of points of the sweep.
    """

    indices: torch.Tensor
    codes: torch.Tensor
    coded: torch.Tensor
    parents: torch.Tensor
    children: torch.Tensor
    points: int

    def to(self, device: str) -> Octree:
        """The same on a device."""
        parts = (self.indices, self.codes, self.coded, self.parents, self.children)
        return Octree(*(part.to(device) for part in parts), self.points)

    @property
    def batch_size(self) -> int:
        """Number of levels."""
        return int(self.indices[:, 0].max()) + 1

    @property
    def spatial_shape(self) -> list[int]:
        """The smallest grid (z, y, x) that holds all levels."""
        return [int(v) + 1 for v in self.indices[:, 1:].amax(dim=0)]


def octree(xyz: npt.NDArray[Any], cell_mm: float = 64.0) -> Octree:
    """The octree of points [P, 3] in metres."""
    millimetres = xyz.astype(np.float64) / 0.001
    cells = np.unique(np.round((millimetres + _ORIGIN_MM) / cell_mm).astype(np.int64), axis=0)
    levels: list[npt.NDArray[np.int64]] = [cells]
    codes, parents, children = [], [], []
    while len(levels[-1]) >= _FEWEST:
        above, row = np.unique(levels[-1] >> 1, axis=0, return_inverse=True)
        child = (levels[-1] & 1) @ np.array([1, 2, 4])
        code = np.zeros(len(above), np.int64)
        np.bitwise_or.at(code, row.ravel(), 1 << child)
        levels.append(above)
        codes.append(code)
        parents.append(row.ravel())
        children.append(child)
    order = range(len(levels) - 1, 0, -1)  # coarsest first; levels[0] has no codes
    start = dict(zip(order, np.cumsum([0, *(len(levels[i]) for i in order)]).tolist(), strict=False))
    origin = {i: levels[i].min(axis=0) >> 1 << 1 for i in order}  # a network sees differences alone
    indices = np.concatenate(
        [
            np.column_stack([np.full(len(levels[i]), order.index(i)), (levels[i] - origin[i])[:, ::-1]])
            for i in order
        ]
    )
    finer = list(order)[1:]
    return Octree(
        torch.from_numpy(indices.astype(np.int32)),
        torch.from_numpy(np.concatenate([codes[i - 1] for i in order])),
        torch.from_numpy(np.concatenate([start[i] + np.arange(len(levels[i])) for i in finer])),
        torch.from_numpy(np.concatenate([start[i + 1] + parents[i] for i in finer])),
        torch.from_numpy(np.concatenate([children[i] for i in finer])),
        len(xyz),
    )
