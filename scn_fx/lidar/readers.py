# SPDX-License-Identifier: Apache-2.0
"""Readers of LiDAR point files: the raw formats of `scn_fx.lidar.formats`, `.tensor`, `.pcd`, `.npy`, `.npz`.

A raw point file is a bare array of floats without a header, so its format is a convention between writer and
reader. The caller names it; without a name it is guessed by one rule (see `guess_format`), and a file that
could be two things is refused rather than misread. A named format is checked against the values.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from scn_fx.errors import LidarError
from scn_fx.files.reading import FileKind, read_file
from scn_fx.lidar.array_points import read_array_points
from scn_fx.lidar.formats import POINT_FORMATS, PointFormat
from scn_fx.lidar.pcd import parse_pcd
from scn_fx.lidar.tensor_file import TENSOR_MAGIC, parse_tensor

__all__ = ["guess_format", "read_points", "read_sweep", "with_time_lag"]

POINT_FILE = FileKind(LidarError, 1 << 30, pipes=True)
"""1 GiB are more than 50 million points: no frame has so many."""

_OWN_COLUMNS = (
    "If its columns are right all the same, read it with NumPy, select or scale them, and keep them with "
    "scn_fx.lidar.write_tensor('NAME.tensor', points): such a file says its own type and is not checked."
)


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
            f"copy it again or pass another format ({_names()})."
        )
    array: npt.NDArray[Any] = np.frombuffer(data, layout.dtype).reshape(points, len(layout.columns)).copy()
    return array


def _implausible(data: bytes, layout: PointFormat) -> str | None:
    """Why `data` is no plausible content of `layout`, or None if it is plausible."""
    if len(data) % layout.record_bytes:
        return f"{len(data)} bytes are no multiple of {layout.record_bytes}"
    return layout.problem(np.frombuffer(data, layout.dtype).reshape(-1, len(layout.columns)))


def _fitting(data: bytes) -> dict[PointFormat, str | None]:
    """Every raw format, and why `data` is not of it; None where it may be."""
    return {layout: _implausible(data, layout) for layout in POINT_FORMATS.values()}


def _guess(data: bytes, path: str | Path) -> str:
    if Path(path).suffix == ".tensor" or data[:4] == TENSOR_MAGIC.to_bytes(4, "little"):
        return "tensor"
    if not data:
        raise LidarError(f"{path}: expected LiDAR points, got an empty file. Copy or write it again.")
    reasons = _fitting(data)
    fitting = [layout for layout, reason in reasons.items() if reason is None]
    if len(fitting) == 1:
        return fitting[0].name
    if fitting:
        raise LidarError(
            f"{path}: expected values that fit one point format, got {len(data)} bytes that fit "
            f"{len(fitting)}: {'; '.join(map(str, fitting))}. Pass format= (--format) to say which it is."
        )
    names: dict[str, list[str]] = {}
    for layout, reason in reasons.items():
        names.setdefault(str(reason), []).append(layout.name)
    why = "; ".join(f"{', '.join(layouts)}: {reason}" for reason, layouts in names.items())
    sized = any(len(data) % layout.record_bytes == 0 for layout in reasons)
    raise LidarError(
        f"{path}: expected one of {_names()}, got {len(data)} bytes that look like none of them ({why}). "
        f"The file is truncated or of another kind{f'. {_OWN_COLUMNS}' if sized else ': copy it again.'}"
    )


def _check_named(data: bytes, points: npt.NDArray[Any], path: str | Path, layout: PointFormat) -> None:
    """Refuse points that contradict the format that the caller named."""
    problem = layout.contradiction(points)
    if problem is None:
        return
    others = [str(other) for other, reason in _fitting(data).items() if reason is None and other != layout]
    if len(others) == 1:
        advice = f"Its values fit {others[0]}: pass that format if that is what they are."
    elif others:
        advice = f"Its values fit {'; '.join(others)}: pass the format that its writer used."
    else:
        advice = f"No other known format fits either. {_OWN_COLUMNS}"
    raise LidarError(f"{path}: expected points as {layout}, but {problem}. {advice}")


def guess_format(path: str | Path) -> str:
    """The format of a point file, guessed from its name and content: one of `POINT_FORMATS`, or its kind.

    The rule: a file named `*.pcd`, `*.npy` or `*.npz` is that ("pcd", "npy", "npz"); one named `*.tensor` or
    starting with that format's magic is a tensor. Otherwise every raw
    format is tried on the whole file, and it fits when the size is a multiple of its record, all values are
    finite, `|x|` and `|y|` stay below 300 m, `|z|` below 100 m, and the further columns stay in their ranges:
    intensity (0 to 255, reflectance 0 to 1; four columns whose intensity stays below 1 are KITTI's), ring and
    laser (whole numbers, 0 to 255 and 0 to 127), time lag (0 to 10 s), time offset (0 to 1 s), elongation
    (0 to 2). The guess stands only if exactly one format fits; `LidarError` says which formats fit, or why
    none does.
    """
    return Path(path).suffix[1:] if _says_its_kind(path) else _guess(read_file(path, POINT_FILE), path)


def read_points(path: str | Path, format: str | None = None) -> npt.NDArray[Any]:
    """Read a LiDAR point file as it is stored.

    `format` is a name in `POINT_FORMATS`, `"tensor"`, or None to guess it (see `guess_format`).

    Returns the points [N, C] in the file's own dtype, float16 or float32, all columns as stored. A `.tensor`
    file must hold float16 or float32 [N, >= 3]. A `.pcd` file gives float32 x, y, z, its intensity, and its
    time lag or ring, as far as its fields have them (see `scn_fx.lidar.pcd`); `.npy` and `.npz` see
    `scn_fx.lidar.array_points`. Of these three a `format` says what the columns are, and they are checked
    against it; `.pcd` files say that themselves. An open pipe serves too (/dev/stdin, a shell's <(command)).
    Raises `LidarError` when the file is missing, no regular file, larger than 1 GiB, empty, of
    another size than the format's records, or cannot be guessed; and when a column does not hold what the
    named format says (a time lag where the ring should be, say), naming the column, its values and the format
    that fits.
    """
    return _read(path, format)[0]


def read_sweep(path: str | Path, format: str | None = None) -> npt.NDArray[Any]:
    """The points of a file as networks for several sweeps take them: `read_points`, with one change.

    Where a format has a ring in its last column (nuScenes, `.pcd` files with one), the time lag stands
    instead, 0 s as for all points of a single sweep. Other columns, a time lag among them, stay as they are.
    """
    points, columns = _read(path, format)
    return with_time_lag(points) if columns[3:] == ("intensity", "ring") else points


def _says_its_kind(path: str | Path) -> bool:
    return Path(path).suffix in (".npy", ".npz", ".pcd")


def _read(path: str | Path, format: str | None) -> tuple[npt.NDArray[Any], tuple[str, ...]]:
    """The points of a file, and what their columns are; nothing where that is not known."""
    if format is not None and format != "tensor" and format not in POINT_FORMATS:
        raise LidarError(
            f"{path}: expected a format among {_names()}, got {format!r}. Pass one of these or None."
        )
    if Path(path).suffix == ".pcd":
        found = parse_pcd(read_file(path, POINT_FILE), str(path))
        return found.points, found.columns
    if _says_its_kind(path):
        points = read_array_points(path)
        layout = POINT_FORMATS.get(format or "")
        return points, () if layout is None else _checked_columns(points, path, layout)
    data = read_file(path, POINT_FILE)
    kind = format or _guess(data, path)
    if kind != "tensor":
        points = _decode(data, str(path), POINT_FORMATS[kind])
        if format is not None:
            _check_named(data, points, path, POINT_FORMATS[kind])
        return points, POINT_FORMATS[kind].columns
    points = parse_tensor(data, str(path))
    if points.ndim != 2 or points.shape[1] < 3 or points.dtype.kind != "f":
        raise LidarError(
            f"{path}: expected points as float16 or float32 [N, >= 3], got {points.dtype.name} "
            f"{list(points.shape)}. Read other tensors with read_tensor."
        )
    return points, ()


def _checked_columns(points: npt.NDArray[Any], path: str | Path, layout: PointFormat) -> tuple[str, ...]:
    """The columns of a format that the caller named, if points of a file without one are like it."""
    width = len(layout.columns)
    problem = f"it has {points.shape[1]} columns" if points.shape[1] != width else None
    problem = problem or layout.contradiction(points)
    if problem is not None:
        raise LidarError(
            f"{path}: expected points as {width} columns ({', '.join(layout.columns)}) for format "
            f"{layout.name!r}, but {problem}. Leave the format out: such a file is then taken as it is."
        )
    return layout.columns


def with_time_lag(points: npt.NDArray[Any], time_lag: float = 0.0) -> npt.NDArray[Any]:
    """The columns (x, y, z, intensity, time lag) of one sweep, whose time lag is the same for every point.

    Takes [N, 4] or [N, 5]; a fifth column (nuScenes' ring) is replaced, for networks trained on several
    sweeps expect a time in seconds there. Returns [N, 5] of the same dtype; values of the other columns are
    unchanged. Raises `LidarError` for other shapes, and for a fifth column that is no ring: it holds
    fractions, so it may be a time lag already.
    """
    if points.ndim != 2 or points.shape[1] not in (4, 5):
        raise LidarError(
            f"Expected points [N, 4] or [N, 5] (x, y, z, intensity[, ring]), got {list(points.shape)}. "
            "Select the columns first."
        )
    if points.shape[1] == 5 and (points[:, 4] != np.floor(points[:, 4])).any():
        low, high = float(points[:, 4].min()), float(points[:, 4].max())
        raise LidarError(
            f"Expected a ring (whole numbers) in the fifth column, got {low:.6g} to {high:.6g} with "
            "fractions. If it is a time lag, leave it as it is; to replace it anyway, pass points[:, :4]."
        )
    lag = np.full((len(points), 1), time_lag, points.dtype)
    return np.concatenate([points[:, :4], lag], axis=1)
