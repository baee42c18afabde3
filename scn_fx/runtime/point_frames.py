# SPDX-License-Identifier: Apache-2.0
"""Points as an engine takes them: one array, or one for each entry of the batch, in any library and place."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from scn_fx.errors import ArgumentError, SiteError
from scn_fx.lidar.grids import VoxelGrid
from scn_fx.runtime.array_kinds import ArrayKind, shape_name
from scn_fx.runtime.device_arrays import is_cupy
from scn_fx.runtime.host_arrays import as_numpy
from scn_fx.runtime.torch_arrays import is_torch, plain_tensor

__all__ = ["POINTS", "EngineVoxels", "joined_scans"]

POINTS = ArrayKind(
    "points",
    "float16, float32 or bfloat16 of shape [P, C], x, y, z in metres first",
    ("float16", "float32", "bfloat16"),
    "float32",
    "float()",
)


@dataclass(frozen=True, eq=False)
class EngineVoxels:
    """The voxels that an engine makes of points; ``features, indices = voxels`` takes what a call takes."""

    features: npt.NDArray[np.float16]
    """float16 [N, C]: the mean of the voxel's points, column by column."""
    indices: npt.NDArray[np.int32]
    """int32 [N, ndim + 1], ascending, as the network takes them."""
    dropped: int
    """Points outside the grid."""
    surplus: int
    """Points inside the grid that no mean takes, because their voxels have `max_points` already."""
    grid: VoxelGrid
    """The grid that the points were put into."""

    def __iter__(self) -> Iterator[npt.NDArray[Any]]:
        return iter((self.features, self.indices))

    def __len__(self) -> int:
        return len(self.indices)


def joined_scans(points: Any) -> tuple[Any, list[int]]:
    """One array of all points, and how many each scan has.

    Args:
        points: an array [P, C], or a sequence of them of one library, one for each batch entry.

    Raises:
        ArgumentError: an empty sequence.
        SiteError: other shapes, different widths, dtypes or places, or arrays that their library cannot join.
    """
    if not isinstance(points, list | tuple):
        _check_shape(points, "points")
        return points, [int(points.shape[0])]
    if not points:
        raise ArgumentError("points must be an array [P, C] or a list of at least one, got an empty list.")
    for number, scan in enumerate(points):
        _check_shape(scan, f"points[{number}]")
    counts = [int(scan.shape[0]) for scan in points]
    if len(points) == 1:
        return points[0], counts
    kinds = sorted(
        {f"{_place(scan)} {shape_name(scan).partition(' ')[0]} [P, {scan.shape[1]}]" for scan in points}
    )
    if len(kinds) > 1:
        raise SiteError(
            f"points of one batch must have one type, width and place, got {', '.join(kinds)}. "
            "Convert them first."
        )
    return _joined(points), counts


def _joined(scans: Sequence[Any]) -> Any:
    if is_torch(scans[0]):
        plain = [plain_tensor(scan, f"points[{number}]", POINTS) for number, scan in enumerate(scans)]
        return sys.modules["torch"].cat(plain)
    if is_cupy(scans[0]):
        return sys.modules["cupy"].concatenate(list(scans))
    return np.concatenate([as_numpy(scan, f"points[{number}]", POINTS) for number, scan in enumerate(scans)])


def _place(scan: Any) -> str:
    kind = type(scan).__module__.partition(".")[0]
    return f"{kind} {scan.device}" if is_torch(scan) or is_cupy(scan) else kind


def _check_shape(scan: Any, what: str) -> None:
    shape = getattr(scan, "shape", None)
    if shape is None:
        raise SiteError(
            f"{what} must be an array {POINTS.expected}, got {type(scan).__name__}. "
            f"Try numpy.asarray({what})."
        )
    if len(shape) != 2:
        raise SiteError(f"{what} must be {POINTS.expected}, got {shape_name(scan)}.")
