# SPDX-License-Identifier: Apache-2.0
"""Labelled boxes: what a detector finds, and what it is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from scn_fx.errors import LidarError

__all__ = ["CLASSES", "MIN_POINTS", "Boxes"]

CLASSES = ("car", "van", "truck", "pedestrian", "cyclist")
"""The classes of the synthetic scenes and of the detector; `Boxes.label` is an index into them."""

MIN_POINTS = 5
"""Objects with fewer returns are neither taught nor counted: nothing in the points says what they are."""


@dataclass(frozen=True, eq=False)
class Boxes:
    """M upright boxes of one frame, in its coordinates (metres, sensor at the origin, z up)."""

    centre: npt.NDArray[np.float32]
    """[M, 3]: x, y, z of the middle."""
    size: npt.NDArray[np.float32]
    """[M, 3]: length (along the heading), width, height; all > 0."""
    yaw: npt.NDArray[np.float32]
    """[M]: angle of the heading against +x about z, radians."""
    label: npt.NDArray[np.int64]
    """[M]: index of the class."""
    velocity: npt.NDArray[np.float32]
    """[M, 2]: x, y in m/s."""
    points: npt.NDArray[np.int64]
    """[M]: returns of the object in all sweeps; 0 where nobody has counted."""
    score: npt.NDArray[np.float32]
    """[M]: confidence, 0 to 1; 1 for labels."""

    def __post_init__(self) -> None:
        count = len(self.centre)
        for name, shape in (
            ("centre", (count, 3)),
            ("size", (count, 3)),
            ("yaw", (count,)),
            ("label", (count,)),
            ("velocity", (count, 2)),
            ("points", (count,)),
            ("score", (count,)),
        ):
            values = getattr(self, name)
            if values.shape != shape:
                raise LidarError(
                    f"Boxes: expected {name} of shape {list(shape)} beside {count} centres, got "
                    f"{list(values.shape)}. Every field has one entry for each box."
                )
            if not np.isfinite(values).all():
                raise LidarError(f"Boxes: expected finite numbers, got NaN or infinity in {name}.")
        if count and not (self.size > 0).all():
            raise LidarError(f"Boxes: expected sizes > 0, got {float(self.size.min()):g}.")

    @classmethod
    def of(
        cls,
        centre: npt.ArrayLike,
        size: npt.ArrayLike,
        yaw: npt.ArrayLike,
        label: npt.ArrayLike,
        velocity: npt.ArrayLike | None = None,
        points: npt.ArrayLike | None = None,
        score: npt.ArrayLike | None = None,
    ) -> Boxes:
        """Boxes of anything that numpy can convert; velocity and points are 0, score 1 if left out."""
        made = np.asarray(centre, np.float32).reshape(-1, 3)
        count = len(made)
        return cls(
            made,
            np.asarray(size, np.float32).reshape(-1, 3),
            np.asarray(yaw, np.float32),
            np.asarray(label, np.int64),
            np.zeros((count, 2), np.float32) if velocity is None else np.asarray(velocity, np.float32),
            np.zeros(count, np.int64) if points is None else np.asarray(points, np.int64),
            np.ones(count, np.float32) if score is None else np.asarray(score, np.float32),
        )

    @classmethod
    def none(cls) -> Boxes:
        """No boxes."""
        empty = np.zeros((0, 3))
        return cls.of(empty, empty, [], [], np.zeros((0, 2)))

    def __len__(self) -> int:
        return len(self.centre)

    def __getitem__(self, rows: Any) -> Boxes:
        """The boxes at `rows`: a mask [M], or indices."""
        return Boxes(**{name: values[rows] for name, values in vars(self).items()})

    def with_points(self, points: npt.NDArray[np.int64]) -> Boxes:
        """The same boxes with another number of returns each."""
        return replace(self, points=points)

    def within(self, point_range: Sequence[float]) -> npt.NDArray[np.bool_]:
        """[M]: whether the middle lies in (x, y, z, x, y, z) as seen from above."""
        low, high = np.asarray(point_range[:2]), np.asarray(point_range[3:5])
        level = self.centre[:, :2]
        return np.asarray(((level >= low) & (level < high)).all(1))

    def corners(self) -> npt.NDArray[np.float32]:
        """[M, 4, 2]: the outline from above, anticlockwise from the front left."""
        along = np.array([1, -1, -1, 1], np.float32) / 2
        across = np.array([1, 1, -1, -1], np.float32) / 2
        cos, sin = np.cos(self.yaw)[:, None], np.sin(self.yaw)[:, None]
        x, y = self.size[:, :1] * along, self.size[:, 1:2] * across
        return self.centre[:, None, :2] + np.stack([cos * x - sin * y, sin * x + cos * y], 2)
