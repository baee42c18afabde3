# SPDX-License-Identifier: Apache-2.0
"""Voxel grids: which voxel a point lies in, and the grids of well-known networks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from scn_fx.errors import LidarError

__all__ = ["ARITHMETICS", "CENTERPOINT_GRID", "GRIDS", "KITTI_GRID", "VoxelGrid"]

ARITHMETICS = ("float32", "float64")
"""How the voxel of a point can be computed, see `VoxelGrid.arithmetic`."""

_PREFIX = "scn_fx.grid."

_MOST_VOXELS = 2**31 - 1
"""Along one axis: indices are int32."""

_WHOLE = 1e-3
"""A number of voxels this near to a whole one is whole: ranges are decimals, rounded."""


@dataclass(frozen=True)
class VoxelGrid:
    """A regular grid of voxels over a box of space, and how points are put into it.

    Raises LidarError for numbers that are no grid, or an axis without a whole number of voxels (see
    `rounded`).
    """

    point_range: tuple[float, float, float, float, float, float]
    """Lower and upper corner (x, y, z, x, y, z) in metres; a point is inside when lower <= point < upper."""
    voxel_size: tuple[float, float, float]
    """Edges of a voxel in metres: (x, y, z)."""
    extra_z: int = 1
    """Empty slices above the box.

    CenterPoint and SECOND give their encoder one slice more than the box has, so that its strides
    leave two slices in the end (41, 21, 11, 5, 2).
    """
    arithmetic: str = "float32"
    """How the voxel ``floor((point - lower) / edge)`` of a point is computed.

    "float32" rounds every step to float32, as spconv's, mmcv's and det3d's voxelisers do: networks were
    trained on these voxels. (Points in float64 stay so, and only the grid's numbers are rounded, as spconv
    does.) "float64" computes in float64: a point on a face that decimal numbers describe may then lie in the
    neighbouring voxel.
    """
    max_points: int | None = None
    """Most points of a voxel that its mean takes, the first ones in the order of the points; None takes all.

    Voxelisers of training code keep 5 or 10 (MAX_POINTS_PER_VOXEL, max_num_points).
    """

    def __post_init__(self) -> None:
        low_high, edges = _floats(self.point_range, 6), _floats(self.voxel_size, 3)
        if low_high is None or edges is None:
            raise LidarError(
                "A grid needs six range values (x, y, z, x, y, z) and three voxel edges (x, y, z), "
                f"got {self.point_range!r} and {self.voxel_size!r}."
            )
        object.__setattr__(self, "point_range", low_high)
        object.__setattr__(self, "voxel_size", edges)
        self._check_options()
        for axis in range(3):
            low, high, edge = low_high[axis], low_high[axis + 3], edges[axis]
            if edge <= 0 or high <= low:
                raise LidarError(
                    f"Axis {'xyz'[axis]} needs lower < upper and a voxel edge > 0, got {low:g} to {high:g} m "
                    f"in steps of {edge:g} m."
                )
            steps = (high - low) / edge
            if not steps + self.extra_z <= _MOST_VOXELS:
                raise LidarError(
                    f"Axis {'xyz'[axis]} has {steps:g} voxels ({low:g} to {high:g} m in steps of {edge:g} "
                    "m) and "
                    f"{self.extra_z:g} extra slices; indices are int32 and end at {_MOST_VOXELS}. Take a "
                    "smaller range or a larger voxel."
                )
            if abs(steps - round(steps)) > _WHOLE or round(steps) < 1:
                raise LidarError(_partial(axis, low, high, edge))

    def _check_options(self) -> None:
        whole = isinstance(self.extra_z, int) and not isinstance(self.extra_z, bool)
        if whole and self.extra_z > _MOST_VOXELS:
            raise LidarError(f"A grid needs extra_z of at most {_MOST_VOXELS}, got one of more digits.")
        if not np.isfinite([*self.point_range, *self.voxel_size]).all() or not whole or self.extra_z < 0:
            raise LidarError(
                f"A grid needs finite numbers and extra_z >= 0, got range {list(self.point_range)}, "
                f"voxel {list(self.voxel_size)} and extra_z {self.extra_z!r}."
            )
        if self.arithmetic not in ARITHMETICS:
            raise LidarError(
                f"A grid's arithmetic is one of {', '.join(ARITHMETICS)}, got {self.arithmetic!r}."
            )
        if self.max_points is not None and (
            isinstance(self.max_points, bool) or not isinstance(self.max_points, int) or self.max_points < 1
        ):
            raise LidarError(
                f"max_points is a number of points >= 1, or None for all, got {self.max_points!r}."
            )

    @classmethod
    def rounded(cls, point_range: Sequence[float], voxel_size: Sequence[float], **options: Any) -> VoxelGrid:
        """The grid that spconv, OpenPCDet and mmdetection3d make of a range without whole voxels.

        They round the number of voxels, ``round((upper - lower) / edge)``, and keep the lower corner and the
        edges; so the upper corner becomes ``lower + number * edge``. `options` are further fields of the
        grid. Raises LidarError as the constructor does, and for exactly half a voxel, where they disagree
        (std::round against numpy's round-half-even).
        """
        low_high, edges = _floats(point_range, 6), _floats(voxel_size, 3)
        if low_high is None or edges is None or not all(edge > 0 for edge in edges):
            return cls(point_range, voxel_size, **options)  # type: ignore[arg-type]  # it says what is wrong
        upper = []
        for axis in range(3):
            low, high, edge = low_high[axis], low_high[axis + 3], edges[axis]
            steps = (high - low) / edge
            if not math.isfinite(steps) or abs(steps - round(steps)) <= _WHOLE or round(steps) < 1:
                upper.append(high)  # as it is, right or wrong
                continue
            if abs(steps % 1 - 0.5) <= _WHOLE:
                raise LidarError(
                    f"Axis {'xyz'[axis]} has {steps:g} voxels ({low:g} to {high:g} m in steps of {edge:g} "
                    f"m), which some voxelisers round up and some down. Write the upper end that the network "
                    f"was built with: {_end(low, edge, math.floor(steps)):g} m or "
                    f"{_end(low, edge, math.ceil(steps)):g} m."
                )
            upper.append(_end(low, edge, round(steps)))
        return cls((*low_high[:3], *upper), edges, **options)

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

    def same_voxels(self, other: VoxelGrid) -> bool:
        """Whether a voxel of the one is the same piece of space as the voxel of equal index of the other.

        Numbers are compared as float32: training code keeps ranges so. How points are put into the voxels
        (`arithmetic`, `max_points`) does not matter here.
        """
        low, edges = (
            np.array_equal(np.array(a, np.float32), np.array(b, np.float32))
            for a, b in (
                (self.point_range[:3], other.point_range[:3]),
                (self.voxel_size, other.voxel_size),
            )
        )
        return low and edges and self.spatial_shape == other.spatial_shape

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain data for JSON: lists, numbers, strings and None."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> VoxelGrid:
        """The grid of `to_dict`. Raises LidarError for unknown or missing fields, and as the constructor."""
        known = [field.name for field in fields(cls)]
        wrong = [name for name in data if name not in known]
        missing = [name for name in known[:2] if name not in data]
        if wrong or missing:
            raise LidarError(
                f"A grid has the fields {', '.join(known)}, the first two of which must be there; got "
                f"{', '.join(map(str, data)) or 'none'}."
            )
        return cls(**data)

    def to_text(self) -> dict[str, str]:
        """The fields as texts under the keys scn_fx.grid.*, as the metadata of an ONNX file keep them.

        Numbers are separated by commas and have all their digits; a `max_points` of None is left out.
        """
        return {
            f"{_PREFIX}{name}": ",".join(map(repr, value)) if isinstance(value, list) else str(value)
            for name, value in self.to_dict().items()
            if value is not None
        }

    @classmethod
    def from_text(cls, entries: Mapping[str, str]) -> VoxelGrid | None:
        """The grid of `to_text` among other entries; None if there is no such key.

        Raises LidarError for entries that are incomplete or damaged.
        """
        found = {k.removeprefix(_PREFIX): text for k, text in entries.items() if k.startswith(_PREFIX)}
        if not found:
            return None
        data: dict[str, Any] = {}
        for name, text in found.items():
            try:
                if name in ("point_range", "voxel_size"):
                    data[name] = [float(word) for word in text.split(",")]
                else:
                    data[name] = text if name == "arithmetic" else int(text)
            except ValueError as error:
                raise LidarError(f"{_PREFIX}{name} should be numbers, got {text[:80]!r}.") from error
        return cls.from_dict(data)

    def __str__(self) -> str:
        names = [name for name, preset in GRIDS.items() if preset.same_voxels(self)]
        size, low, high = (
            " x ".join(f"{value:g}" for value in values)
            for values in (self.voxel_size, self.point_range[:3], self.point_range[3:])
        )
        shape = " x ".join(map(str, self.spatial_shape))
        low, high = low.replace(" x ", ", "), high.replace(" x ", ", ")
        text = f"{shape} (z, y, x) voxels of {size} m (x, y, z) from ({low}) to ({high}) m"
        return f"{names[0]}: {text}" if names else text


def _floats(values: Any, count: int) -> tuple[Any, ...] | None:
    """`count` numbers as Python floats; None if they are not that."""
    try:
        values = () if isinstance(values, str) else tuple(values)
        found = tuple(float(value) for value in values)
    except (TypeError, ValueError, OverflowError):
        return None
    truths = any(isinstance(value, bool) for value in values)
    return found if len(found) == count and not truths else None


def _end(low: float, edge: float, number: int) -> float:
    """Upper end of `number` voxels, without the last digits of binary arithmetic."""
    return round(low + number * edge, 6)


def _partial(axis: int, low: float, high: float, edge: float) -> str:
    steps = (high - low) / edge
    text = (
        f"Axis {'xyz'[axis]} needs a whole number of voxels, got {steps:.4f} ({low:g} to {high:g} m in steps "
        f"of {edge:g} m)."
    )
    fitting = [_end(low, edge, number) for number in (math.floor(steps), math.ceil(steps)) if number > 0]
    text += f" Write an upper end of {' or '.join(f'{end:g}' for end in fitting)} m."
    if abs(steps % 1 - 0.5) > _WHOLE and round(steps) > 0:
        text += (
            f" A network that was trained with this range has {round(steps)} voxels there, since spconv, "
            f"OpenPCDet and mmdetection3d round: {_end(low, edge, round(steps)):g} m gives exactly its "
            "voxels, and so does VoxelGrid.rounded(point_range, voxel_size)."
        )
    return text


CENTERPOINT_GRID = VoxelGrid((-54.0, -54.0, -5.0, 54.0, 54.0, 3.0), (0.075, 0.075, 0.2))
"""CenterPoint on nuScenes at 0.075 m: 41 x 1440 x 1440; BEVFusion, TransFusion and VoxelNeXt have it too."""
KITTI_GRID = VoxelGrid((0.0, -40.0, -3.0, 70.4, 40.0, 1.0), (0.05, 0.05, 0.1))
"""SECOND on KITTI as OpenPCDet configures it: 41 x 1600 x 1408."""
GRIDS: dict[str, VoxelGrid] = {
    "centerpoint": CENTERPOINT_GRID,
    "kitti": KITTI_GRID,
    # CenterPoint and SECOND on nuScenes at 0.1 m: 41 x 1024 x 1024.
    "nuscenes": VoxelGrid((-51.2, -51.2, -5.0, 51.2, 51.2, 3.0), (0.1, 0.1, 0.2)),
    # PillarNet on nuScenes at 0.075 m: 1440 x 1440 pillars, each as high as the range.
    "pillarnet": VoxelGrid((-54.0, -54.0, -5.0, 54.0, 54.0, 3.0), (0.075, 0.075, 8.0), extra_z=0),
    "bevfusion": CENTERPOINT_GRID,
    "transfusion": CENTERPOINT_GRID,
    "voxelnext": CENTERPOINT_GRID,
    "waymo": VoxelGrid((-75.2, -75.2, -2.0, 75.2, 75.2, 4.0), (0.1, 0.1, 0.15)),  # 41 x 1504 x 1504
    "once": VoxelGrid((-75.2, -75.2, -5.0, 75.2, 75.2, 3.0), (0.1, 0.1, 0.2)),  # 41 x 1504 x 1504
    # VoxelNeXt on Argoverse 2: 201 x 4000 x 4000.
    "argoverse2": VoxelGrid((-200.0, -200.0, -20.0, 200.0, 200.0, 20.0), (0.1, 0.1, 0.2)),
}
"""The presets by name: ranges and voxel sizes of OpenPCDet's and mmdetection3d's public configurations."""
