# SPDX-License-Identifier: Apache-2.0
"""Readers of LiDAR point files: nuScenes, KITTI, float16 sweeps and `.tensor`.

A raw point file is a bare array of floats without a header, so its format is a convention between writer and
reader. The caller names it; without a name it is guessed by one rule (see `guess_format`), and a file that
could be two things is refused rather than misread.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from scn_fx.errors import LidarError
from scn_fx.lidar.tensor_file import TENSOR_MAGIC, parse_tensor, read_bytes

__all__ = ["POINT_FORMATS", "PointFormat", "guess_format", "read_points", "with_time_lag"]


@dataclass(frozen=True)
class PointFormat:
    """One raw point format: records of `len(columns)` floats, nothing else in the file."""

    name: str
    """What callers pass as `format=`."""
    dtype: str
    """NumPy dtype of every value, little-endian."""
    columns: tuple[str, ...]
    """What each value of a record means."""
    intensity_max: float
    """Largest intensity the format's writers use; part of the plausibility check."""

    @property
    def record_bytes(self) -> int:
        """Bytes of one point."""
        return np.dtype(self.dtype).itemsize * len(self.columns)

    def __str__(self) -> str:
        return f"{self.name} ({np.dtype(self.dtype).name} x {len(self.columns)}: {', '.join(self.columns)})"


POINT_FORMATS: dict[str, PointFormat] = {
    f.name: f
    for f in (
        PointFormat("nuscenes", "<f4", ("x", "y", "z", "intensity", "ring"), 255.0),
        PointFormat("kitti", "<f4", ("x", "y", "z", "reflectance"), 1.0),
        PointFormat("float16x5", "<f2", ("x", "y", "z", "intensity", "time lag"), 255.0),
    )
}
"""The raw formats by name. `"tensor"` is the further name that `read_points` knows."""

# What a LiDAR can see: no sensor in these data sets measures beyond 250 m or 100 m up or down.
_MAX_DISTANCE = 300.0
_MAX_HEIGHT = 100.0
_MAX_RING = 255.0
_MAX_TIME_LAG = 10.0


def _names() -> str:
    return ", ".join([*POINT_FORMATS, "tensor"])


def _decode(data: bytes, name: str, layout: PointFormat) -> npt.NDArray[Any]:
    if not data:
        raise LidarError(f"{name}: expected points as {layout}, got an empty file. Copy or write it again.")
    points, rest = divmod(len(data), layout.record_bytes)
    if rest:
        raise LidarError(
            f"{name}: expected a multiple of {layout.record_bytes} bytes for {layout}, got {len(data)} bytes "
            f"({points} points and {rest} bytes over). The file is truncated or has another format: "
            f"copy it again or pass another format= ({_names()})."
        )
    array: npt.NDArray[Any] = np.frombuffer(data, layout.dtype).reshape(points, len(layout.columns)).copy()
    return array


def _implausible(data: bytes, layout: PointFormat) -> str | None:
    """Why `data` is no plausible content of `layout`, or None if it is plausible."""
    if len(data) % layout.record_bytes:
        return f"{len(data)} bytes are no multiple of {layout.record_bytes}"
    points = np.frombuffer(data, layout.dtype).reshape(-1, len(layout.columns))
    if not np.isfinite(points).all():
        return "it would hold NaN or infinite values"
    low, high = points.min(axis=0).astype(float), points.max(axis=0).astype(float)
    far = float(np.abs(points[:, :2]).max())
    if far > _MAX_DISTANCE:
        return f"|x| or |y| would reach {far:.4g} m"
    if max(-low[2], high[2]) > _MAX_HEIGHT:
        return f"z would span {low[2]:.4g} to {high[2]:.4g} m"
    if low[3] < 0 or high[3] > layout.intensity_max:
        return (
            f"{layout.columns[3]} would span {low[3]:.4g} to {high[3]:.4g}, not 0 to {layout.intensity_max:g}"
        )
    if layout.columns[-1] == "ring":
        ring = points[:, 4]
        if low[4] < 0 or high[4] > _MAX_RING or (ring != np.floor(ring)).any():
            return f"ring would not be whole numbers from 0 to {_MAX_RING:g}"
    if layout.columns[-1] == "time lag" and (low[4] < 0 or high[4] > _MAX_TIME_LAG):
        return f"time lag would span {low[4]:.4g} to {high[4]:.4g} s, not 0 to {_MAX_TIME_LAG:g}"
    return None


def _guess(data: bytes, path: str | Path) -> str:
    if Path(path).suffix == ".tensor" or data[:4] == TENSOR_MAGIC.to_bytes(4, "little"):
        return "tensor"
    if not data:
        raise LidarError(f"{path}: expected LiDAR points, got an empty file. Copy or write it again.")
    reasons = {layout: _implausible(data, layout) for layout in POINT_FORMATS.values()}
    fitting = [layout for layout, reason in reasons.items() if reason is None]
    if len(fitting) == 1:
        return fitting[0].name
    if fitting:
        raise LidarError(
            f"{path}: expected values that fit one point format, got {len(data)} bytes that fit "
            f"{len(fitting)}: {'; '.join(map(str, fitting))}. Pass format= to say which it is."
        )
    why = "; ".join(f"{layout.name}: {reason}" for layout, reason in reasons.items())
    raise LidarError(
        f"{path}: expected one of {_names()}, got {len(data)} bytes that look like none of them ({why}). "
        "If you know the format, pass format=; otherwise the file is truncated or of another kind."
    )


def guess_format(path: str | Path) -> str:
    """The format of a point file, guessed from its name and content: one of `POINT_FORMATS` or `"tensor"`.

    The rule: a file named `*.tensor` or starting with that format's magic is a tensor. Otherwise every raw
    format is tried on the whole file, and it fits when the size is a multiple of its record, all values are
    finite, |x| and |y| stay below 300 m, |z| below 100 m, and intensity (0 to 255, KITTI 0 to 1), ring
    (whole numbers, 0 to 255) and time lag (0 to 10 s) stay in their ranges. The guess stands only if
    exactly one format fits; `LidarError` says which formats fit, or why none does.
    """
    return _guess(read_bytes(path), path)


def read_points(path: str | Path, format: str | None = None) -> npt.NDArray[Any]:
    """Read a LiDAR point file as it is stored.

    `format` is `"nuscenes"` (float32 x 5: x, y, z, intensity 0..255, ring), `"kitti"` (float32 x 4: x, y, z,
    reflectance 0..1), `"float16x5"` (x, y, z, intensity 0..255, time lag in s), `"tensor"` (a `.tensor`
    file with a float16 or float32 array [N, >= 3]), or None to guess by `guess_format`.

    Returns float16 or float32 [N, columns]; positions in metres. Columns are not converted: see
    `with_time_lag`. Raises `LidarError` for an unknown format, a missing or empty file, a size that is no
    multiple of the record, and a guess that is not certain.
    """
    if format is not None and format != "tensor" and format not in POINT_FORMATS:
        raise LidarError(
            f"{path}: expected a format among {_names()}, got {format!r}. Pass one of these or None."
        )
    data = read_bytes(path)
    kind = format or _guess(data, path)
    if kind != "tensor":
        return _decode(data, str(path), POINT_FORMATS[kind])
    points = parse_tensor(data, str(path))
    if points.ndim != 2 or points.shape[1] < 3 or points.dtype.kind != "f":
        raise LidarError(
            f"{path}: expected points as float16 or float32 [N, >= 3], got {points.dtype.name} "
            f"{list(points.shape)}. Read other tensors with read_tensor."
        )
    return points


def with_time_lag(points: npt.NDArray[Any], time_lag: float = 0.0) -> npt.NDArray[Any]:
    """The columns (x, y, z, intensity, time lag) of one sweep, whose time lag is the same for every point.

    Takes [N, 4] or [N, 5]; a fifth column (nuScenes' ring) is replaced, for networks trained on several
    sweeps expect a time in seconds there. Returns [N, 5] of the same dtype; values of the other columns are
    unchanged.
    """
    if points.ndim != 2 or points.shape[1] not in (4, 5):
        raise LidarError(
            f"Expected points [N, 4] or [N, 5] (x, y, z, intensity[, ring]), got {list(points.shape)}. "
            "Select the columns first."
        )
    lag = np.full((len(points), 1), time_lag, points.dtype)
    return np.concatenate([points[:, :4], lag], axis=1)
