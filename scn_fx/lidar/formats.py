# SPDX-License-Identifier: Apache-2.0
"""The raw point formats: which columns they have, and what values a column can hold."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["POINT_FORMATS", "Column", "PointFormat"]


@dataclass(frozen=True)
class Column:
    """A column of a point format, and the values that its writers put there."""

    name: str
    low: float
    high: float
    unit: str = ""
    whole: bool = False
    """Holds whole numbers alone."""
    fractions: bool = False
    """Whole numbers that reach 1 are something else: a time in seconds is no ring."""
    exceeds: float | None = None
    """The largest value lies above this; another format stands for columns whose values do not."""

    def problem(self, values: npt.NDArray[Any]) -> str | None:
        """What is unlike this column about `values` (finite, at least one); None if nothing is."""
        low, high = float(values.min()), float(values.max())
        span = f"{low:.6g} to {high:.6g}{self.unit}"
        if low < self.low or high > self.high:
            return f"{self.name} would span {span}, not {self.low:g} to {self.high:g}{self.unit}"
        if self.whole and (values != np.floor(values)).any():
            return f"{self.name} would have fractions ({span}), not whole numbers"
        if self.fractions and high >= 1 and (values == np.floor(values)).all():
            return f"{self.name} would have whole numbers alone ({span})"
        if self.exceeds is not None and high <= self.exceeds:
            return f"{self.name} would span {span} only"
        return None


# What a LiDAR can see: no sensor in these data sets measures beyond 250 m or 100 m up or down.
_POSITION = (Column("x", -300, 300, " m"), Column("y", -300, 300, " m"), Column("z", -100, 100, " m"))
_INTENSITY = Column("intensity", 0, 255)
_REFLECTANCE = Column("reflectance", 0, 1)
_RING = Column("ring", 0, 255, whole=True)
_TIME_LAG = Column("time lag", 0, 10, " s", fractions=True)


@dataclass(frozen=True)
class PointFormat:
    """One raw point format: records of `len(columns)` floats, nothing else in the file."""

    name: str
    """What callers pass as `format=`."""
    dtype: str
    """NumPy dtype of every value, little-endian."""
    layout: tuple[Column, ...]
    """What each value of a record means; x, y, z first."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(column.name for column in self.layout)

    @property
    def record_bytes(self) -> int:
        """Bytes of one point."""
        return np.dtype(self.dtype).itemsize * len(self.layout)

    def problem(self, points: npt.NDArray[Any]) -> str | None:
        """Why `points` [N, C] cannot be the content of such a file for certain; None if they can be.

        Every value must be finite and every column plausible.
        """
        if not np.isfinite(points).all():
            return "it would hold NaN or infinite values"
        problems = (c.problem(points[:, i]) for i, c in enumerate(self.layout))
        return next((text for text in problems if text), None)

    def contradiction(self, points: npt.NDArray[Any]) -> str | None:
        """What in `points` [N, C] is not what this format says, when the user has named it; None if nothing.

        Gentler than `problem`: rows that are not finite, and up to one in a hundred positions far out, are
        faults of a sensor and not of the format; so is a range that another format would fit as well.
        """
        rows = points[np.isfinite(points).all(axis=1)]
        if not len(rows):
            return "not one of its rows is finite" if len(points) else None
        for index, column in enumerate(self.layout):
            values = rows[:, index].astype(np.float64)
            if index < 3:
                far = (values < column.low) | (values > column.high)
                if far.sum() > 0.01 * len(rows):
                    text = f"{far.mean():.0%} of {column.name} would lie beyond {column.high:g}{column.unit}"
                    return f"{text} ({values.min():.6g} to {values.max():.6g})"
                continue
            problem = replace(column, exceeds=None).problem(values)
            if problem:
                return problem
        return None

    def __str__(self) -> str:
        return f"{self.name} ({np.dtype(self.dtype).name} x {len(self.layout)}: {', '.join(self.columns)})"


POINT_FORMATS: dict[str, PointFormat] = {
    f.name: f
    for f in (
        PointFormat("nuscenes", "<f4", (*_POSITION, _INTENSITY, _RING)),
        PointFormat("float32x5", "<f4", (*_POSITION, _INTENSITY, _TIME_LAG)),
        PointFormat("float16x5", "<f2", (*_POSITION, _INTENSITY, _TIME_LAG)),
        PointFormat("kitti", "<f4", (*_POSITION, _REFLECTANCE)),
        PointFormat("float32x4", "<f4", (*_POSITION, Column("intensity", 0, 255, exceeds=1.0))),
        PointFormat("waymo", "<f4", (*_POSITION, _REFLECTANCE, Column("elongation", 0, 2, fractions=True))),
        PointFormat(
            "argoverse2",
            "<f4",
            (
                *_POSITION,
                _INTENSITY,
                Column("laser", 0, 127, whole=True),
                Column("time offset", 0, 1, " s", fractions=True),
            ),
        ),
    )
}
"""The raw formats by name. `"tensor"` is the further name that `read_points` knows."""
