# SPDX-License-Identifier: Apache-2.0
"""Indices that remember the voxel grid they were made in, and whether that grid fits a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from scn_fx.dimensions import index_columns, index_text, width_advice
from scn_fx.errors import GridError
from scn_fx.lidar.grids import GRIDS, VoxelGrid

__all__ = ["NetworkGrid", "SiteIndices", "grid_of"]


class SiteIndices(np.ndarray[Any, np.dtype[np.int32]]):
    """An int32 array [N, 4] (batch, z, y, x) that knows the grid of its voxels.

    So that ``engine(*voxelize(points, grid))`` can tell a frame of another grid. Only this very array knows
    it: views, slices, copies, results of arithmetic and tensors made from it do not, for their numbers may
    mean something else.
    """

    grid: VoxelGrid | None = None
    """None for an array that was derived from such indices."""

    @classmethod
    def of(cls, indices: npt.NDArray[np.int32], grid: VoxelGrid) -> SiteIndices:
        """`indices` (no copy) as voxels of `grid`."""
        made = indices.view(cls)
        made.grid = grid
        return made


def grid_of(frame: Any) -> VoxelGrid | None:
    """The grid of `Voxels`, a `Frame`, a pair (features, indices) or indices; None where it is not known."""
    found = getattr(frame, "grid", None)
    if isinstance(found, VoxelGrid):
        return found
    if isinstance(frame, tuple | list):
        return next((part.grid for part in frame if isinstance(part, SiteIndices)), None)
    return None


@dataclass(frozen=True)
class NetworkGrid:
    """What is known of the voxels that a network takes."""

    source: str
    """Whose grid it is, for messages: "the file scn.onnx", "the graph"."""
    grid: VoxelGrid | None = None
    """Range and voxel size; None where nothing recorded them."""
    spatial_shape: tuple[int, int, int] | None = None
    """Sites along (z, y, x); None if unknown."""
    axes: str = "zyx"
    """Order of the index columns behind the batch, "zyx" or "xyz"."""
    ndim: int = 3
    """Dimensions of the network: its indices are [N, ndim + 1]."""

    def check(self, frame: Any, where: str = "The frame") -> None:
        """Raise GridError if `frame` (see `grid_of`) is known to be made for another grid, or other axes."""
        grid = grid_of(frame)
        if grid is None:
            return
        self.check_grid(grid, f"{where} was voxelised in")
        if self.ndim < 3:
            raise GridError(
                f"{where}: expected indices {index_text(self.ndim, self.axes)} for {self.source}, got [N, 4] "
                "(batch, z, y, x), as voxelize gives them."
                f"{width_advice(self.ndim, self.axes, 4) if self.axes == 'zyx' else ''} A NetworkGrid's "
                "`columns` does it: engine.network_grid.columns(indices)."
            )
        if self.axes == "xyz":
            raise GridError(
                f"{where}: expected indices (batch, x, y, z) for {self.source}, got (batch, z, y, x), the "
                "order of voxelize. Reorder the columns: indices[:, [0, 3, 2, 1]]."
            )

    def check_grid(
        self, grid: VoxelGrid, what: str, advice: str = "Voxelise the points in the network's grid."
    ) -> None:
        """Raise GridError unless the voxels of `grid` are this network's, as far as that is known.

        `what` begins the message, and `grid` ends its sentence: "The frame was voxelised in …"; `advice` is
        its end.
        """
        if self.grid is not None:
            if not self.grid.same_voxels(grid):
                raise GridError(f"{what} the grid {grid}, but {self.source} takes {self.grid}. {advice}")
            return
        if self.spatial_shape is not None and grid.spatial_shape != self.spatial_shape:
            hint = ""
            z, y, x = self.spatial_shape
            if grid.box_shape[1:] == (y, x) and z >= grid.box_shape[0]:
                hint = f" (with extra_z={z - grid.box_shape[0]} if range and voxel size are right)"
            raise GridError(
                f"{what} the grid {grid}, but {self.source} takes sites in {_shape(self.spatial_shape)} (z, "
                f"y, x). {advice[:-1]}{hint}."
            )

    def require(self, given: VoxelGrid | None, option: str) -> VoxelGrid:
        """The grid to voxelise points in: the network's own, or the `given` one where that is not known.

        Raises GridError if `given` contradicts what is known, or nothing says the grid; `option` is what the
        user can pass.
        """
        if given is not None:
            self.check_grid(given, f"{option} is", f"Leave {option} out, or give the network's grid.")
            # The same voxels, but the given grid may say how points are put into them.
            return given
        if self.grid is not None:
            return self.grid
        fitting = [name for name, preset in GRIDS.items() if preset.spatial_shape == self.spatial_shape]
        size = f" Its sites lie in {_shape(self.spatial_shape)} (z, y, x)" if self.spatial_shape else ""
        size += (
            f", as those of the preset(s) {', '.join(fitting)}." if size and fitting else "." if size else ""
        )
        raise GridError(
            f"Points need a voxel grid, and {self.source} does not record one.{size} Pass {option} with the "
            "grid that the network was trained with."
        )

    def columns(self, indices: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        """Indices (batch, z, y, x) as the network takes them: its columns, in its order.

        Raises GridError if a column that the network lacks is not zero throughout.
        """
        if self.axes == "zyx" and self.ndim == 3:
            return indices
        given, rows = index_columns(3), np.asarray(indices)
        chosen = [given.index(name) for name in index_columns(self.ndim, self.axes)]
        for number in sorted(set(range(4)) - set(chosen)):
            if rows[:, number].any():
                name, most = given[number], rows[:, number].max()
                raise GridError(
                    f"{self.source[0].upper()}{self.source[1:]} takes indices "
                    f"{index_text(self.ndim, self.axes)}, so voxels of one cell along {name}, but the frame "
                    f"has some at {name} = {most}. Voxelise it in a grid of one voxel there: a voxel_size as "
                    "large as the range, and extra_z=0."
                )
        return np.ascontiguousarray(rows[:, chosen])


def _shape(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
