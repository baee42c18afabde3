# SPDX-License-Identifier: Apache-2.0
"""PCD, the point files of the Point Cloud Library: a header in text, then values as text or bytes.

The header names the fields of a point, so that nothing needs to be guessed. Networks take x, y, z, an
intensity and the time since the key frame; what else a file may hold (colours, normals, labels, absolute
times) is left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from scn_fx.errors import LidarError
from scn_fx.files.limits import largest_array_bytes
from scn_fx.files.reading import size_text
from scn_fx.lidar.lzf import unpack_lzf

__all__ = ["PcdPoints", "parse_pcd"]

Array = npt.NDArray[Any]

_POSITION = ("x", "y", "z")
_INTENSITY = ("intensity", "i", "reflectivity", "reflectance", "remission")
_TIME_LAG = ("time_lag", "timelag", "time_diff", "dt")
_RING = ("ring", "laser", "laser_id", "channel", "beam")

_KEYS = ("VERSION", "FIELDS", "SIZE", "TYPE", "COUNT", "WIDTH", "HEIGHT", "VIEWPOINT", "POINTS", "DATA")
_KINDS = {"F": {"2": "<f2", "4": "<f4", "8": "<f8"}} | {
    kind: {size: f"<{kind.lower()}{size}" for size in "1248"} for kind in "IU"
}
_LONGEST_HEADER = 64 << 10
_MOST_FIELDS = 256
_AGAIN = "It is damaged or truncated: copy or write it again."


@dataclass(frozen=True)
class PcdPoints:
    """The points of a PCD file: float32 [N, 3 to 5], and what each column is."""

    points: Array
    columns: tuple[str, ...]
    """x, y, z, then "intensity" if there is one, and behind it "time lag" or "ring"."""


@dataclass(frozen=True)
class _Header:
    names: tuple[str, ...]
    dtypes: tuple[np.dtype[Any], ...]
    counts: tuple[int, ...]
    points: int
    data: str

    @property
    def point_bytes(self) -> int:
        return sum(d.itemsize * count for d, count in zip(self.dtypes, self.counts, strict=True))

    def columns(self) -> dict[str, int]:
        """Which fields are taken, by the name of the column that they become, in order."""
        lower = [name.lower() for name in self.names]
        groups: list[tuple[tuple[str, ...], str]] = [((name,), name) for name in _POSITION]
        groups += [(_INTENSITY, "intensity"), (_TIME_LAG, "time lag"), (_RING, "ring")]
        found: dict[str, int] = {}
        for aliases, column in groups:
            at = next((lower.index(alias) for alias in aliases if alias in lower), None)
            # A fourth column is an intensity to every network, a fifth what follows it.
            fits = column not in ("time lag", "ring") or ("intensity" in found and "time lag" not in found)
            if at is not None and fits:
                found[column] = at
        return found


def parse_pcd(data: bytes, name: str) -> PcdPoints:
    """The points in the bytes of a PCD file; `name` is what messages call it.

    Reads DATA ascii, binary and binary_compressed. Points whose x, y and z are all NaN are cells of an
    organised cloud without an echo, and no points. Raises LidarError for a damaged file, and one without
    fields x, y and z.
    """
    header, start = _header(data, name)
    chosen = header.columns()
    missing = [column for column in _POSITION if column not in chosen]
    if missing:
        raise LidarError(
            f"{name}: expected fields x, y and z, got {', '.join(header.names)}. Name the fields in its "
            "header so, or keep the points with scn_fx.lidar.write_tensor('NAME.tensor', points)."
        )
    several = [column for column, at in chosen.items() if header.counts[at] != 1]
    if several:
        raise LidarError(
            f"{name}: expected one value of {several[0]} for each point, got "
            f"{header.counts[chosen[several[0]]]} (COUNT). Write it again with COUNT 1."
        )
    read = {"ascii": _ascii, "binary": _binary, "binary_compressed": _compressed}[header.data]
    values = read(data[start:], header, list(chosen.values()), name)
    points = np.empty((header.points, len(chosen)), np.float32)
    with np.errstate(over="ignore"):  # what float32 does not hold becomes infinite, which voxelize refuses
        for column, found in enumerate(values):
            points[:, column] = found
    return PcdPoints(points[~np.isnan(points[:, :3]).all(axis=1)], tuple(chosen))


def _header(data: bytes, name: str) -> tuple[_Header, int]:
    """The header, and where the values start."""
    entries: dict[str, list[str]] = {}
    at = 0
    while "DATA" not in entries:
        end = data.find(b"\n", at, at + _LONGEST_HEADER)
        if end < 0 or end > _LONGEST_HEADER:
            raise LidarError(f"{name}: expected the header of a PCD file, which ends in DATA. {_AGAIN}")
        words = data[at:end].decode("latin-1").split()
        at = end + 1
        if not words or words[0].startswith("#"):
            continue
        key = words[0].upper()
        if key not in _KEYS or key in entries:
            raise LidarError(
                f"{name}: expected a PCD header of {', '.join(_KEYS)}, once each, got {words[0][:40]!r}. "
                "It is another kind of file, or damaged."
            )
        entries[key] = words[1:]
    missing = [key for key in ("FIELDS", "SIZE", "TYPE", "WIDTH") if key not in entries]
    if missing:
        raise LidarError(f"{name}: its PCD header lacks {', '.join(missing)}. {_AGAIN}")
    names, sizes, types = entries["FIELDS"], entries["SIZE"], entries["TYPE"]
    counts = entries.get("COUNT") or ["1"] * len(names)
    if not len(names) == len(sizes) == len(types) == len(counts) <= _MOST_FIELDS:
        raise LidarError(
            f"{name}: its PCD header has {len(names)} FIELDS, {len(sizes)} of SIZE, {len(types)} of TYPE, "
            f"{len(counts)} of COUNT; expected as many of each, at most {_MOST_FIELDS}. {_AGAIN}"
        )
    dtypes = []
    for field, size, kind in zip(names, sizes, types, strict=True):
        if size not in _KINDS.get(kind.upper(), {}):
            raise LidarError(
                f"{name}: its field {field[:40]!r} has TYPE {kind[:8]} and SIZE {size[:8]}; expected F of 2, "
                "4 or 8 bytes, I or U of 1, 2, 4 or 8."
            )
        dtypes.append(np.dtype(_KINDS[kind.upper()][size]))
    shape = [_whole(entries, key, name) for key in ("WIDTH", "HEIGHT") if key in entries]
    points = _whole(entries, "POINTS", name) if "POINTS" in entries else prod(shape)
    if points != prod(shape):
        raise LidarError(f"{name}: its PCD header says POINTS {points}, but WIDTH x HEIGHT {prod(shape)}.")
    form = " ".join(entries["DATA"]).lower()
    if form not in ("ascii", "binary", "binary_compressed"):
        raise LidarError(f"{name}: expected DATA ascii, binary or binary_compressed, got {form[:40]!r}.")
    each = [_number(text, f"{name}: COUNT", 1 << 16) for text in counts]
    made = _Header(tuple(names), tuple(dtypes), tuple(each), points, form)
    if points * made.point_bytes > largest_array_bytes():
        raise LidarError(
            f"{name}: its header says {points} points of {made.point_bytes} bytes, "
            f"{size_text(points * made.point_bytes)}; at most {size_text(largest_array_bytes())} are read."
        )
    return made, at


def _whole(entries: dict[str, list[str]], key: str, name: str) -> int:
    return _number(" ".join(entries[key]), f"{name}: {key}", 1 << 40)


def _number(text: str, what: str, most: int) -> int:
    if not re.fullmatch(r"\d{1,15}", text) or int(text) > most:
        raise LidarError(f"{what} of its PCD header is {text[:40]!r}, no number up to {most}. {_AGAIN}")
    return int(text)


def _ascii(body: bytes, header: _Header, chosen: list[int], name: str) -> list[Array]:
    width = sum(header.counts)
    words = body.split()
    if len(words) != header.points * width:
        raise LidarError(
            f"{name}: expected {header.points} points of {width} values, got {len(words)} values. {_AGAIN}"
        )
    first = np.cumsum([0, *header.counts]).tolist()
    try:
        return [np.array(words[first[at] :: width], np.float64) for at in chosen]
    except ValueError as error:
        raise LidarError(f"{name}: expected numbers as its points: {error}. {_AGAIN}") from error


def _binary(body: bytes, header: _Header, chosen: list[int], name: str) -> list[Array]:
    expected = header.points * header.point_bytes
    if len(body) < expected or body[expected:].strip(b"\0"):  # some writers fill the last page with zeros
        raise LidarError(
            f"{name}: expected {expected} bytes for {header.points} points of {header.point_bytes} bytes, "
            f"got {len(body)}. {_AGAIN}"
        )
    rows = np.frombuffer(body, np.uint8, expected).reshape(header.points, header.point_bytes)
    found, start = [], 0
    for at, (dtype, count) in enumerate(zip(header.dtypes, header.counts, strict=True)):
        if at in chosen:
            column = np.ascontiguousarray(rows[:, start : start + dtype.itemsize])
            found.append((chosen.index(at), column.view(dtype)[:, 0]))
        start += dtype.itemsize * count
    return [column for _, column in sorted(found, key=lambda pair: pair[0])]


def _compressed(body: bytes, header: _Header, chosen: list[int], name: str) -> list[Array]:
    expected = header.points * header.point_bytes
    packed, size = (int.from_bytes(body[at : at + 4], "little") for at in (0, 4))
    rest = body[8:]
    if len(body) < 8 or size != expected or len(rest) < packed or rest[packed:].strip(b"\0"):
        raise LidarError(
            f"{name}: expected {expected} bytes for {header.points} points of {header.point_bytes} bytes, "
            f"compressed to what follows, got {size} compressed to {packed} of {max(len(rest), 0)}. {_AGAIN}"
        )
    try:
        values = unpack_lzf(rest[:packed], size)
    except ValueError as error:
        raise LidarError(f"{name}: its compressed values cannot be unpacked: {error}. {_AGAIN}") from error
    starts = np.cumsum(
        [0, *(header.points * d.itemsize * c for d, c in zip(header.dtypes, header.counts, strict=True))]
    ).tolist()
    return [np.frombuffer(values, header.dtypes[at], header.points, starts[at]) for at in chosen]
