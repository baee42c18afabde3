# SPDX-License-Identifier: Apache-2.0
"""PCD files, written here by hand in every form, and LZF against a packer of its own."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scn_fx.errors import LidarError
from scn_fx.lidar import guess_format, read_points, read_sweep
from scn_fx.lidar.lzf import unpack_lzf

Array = npt.NDArray[Any]

LIVOX = """# .PCD v0.7 - Point Cloud Data file format
VERSION 0.7
FIELDS x y z intensity ring
SIZE 4 4 4 4 2
TYPE F F F F U
COUNT 1 1 1 1 1
WIDTH 3
HEIGHT 1
VIEWPOINT 0 0 0 1 0 0 0
POINTS 3
DATA {form}
"""
ROWS = [(1.5, -2.0, 0.25, 17.0, 3), (4.0, 5.0, -1.0, 255.0, 31), (-7.125, 8.0, 2.0, 0.0, 0)]
EXPECTED = np.array(ROWS, np.float32)


def pack_lzf(data: bytes) -> bytes:
    """LZF of `data`, with copies wherever three bytes have come before."""
    made, literals, seen, at = bytearray(), bytearray(), {}, 0

    def flush() -> None:
        while literals:
            piece = literals[:32]
            made.append(len(piece) - 1)
            made.extend(piece)
            del literals[:32]

    while at < len(data):
        key = data[at : at + 3]
        start = seen.get(key)
        seen[key] = at
        if start is None or len(key) < 3 or at - start > 8192:
            literals.append(data[at])
            at += 1
            continue
        count = 3
        while at + count < len(data) and count < 264 and data[start + count] == data[at + count]:
            count += 1
        flush()
        back, length = at - start - 1, count - 2
        made.append(min(length, 7) << 5 | back >> 8)
        if length >= 7:
            made.append(length - 7)
        made.append(back & 255)
        at += count
    flush()
    return bytes(made)


@given(st.lists(st.sampled_from([b"a", b"bc", b"abcabc", b"\0" * 300, bytes(range(256))]), max_size=40))
def test_lzf_gives_back_what_was_packed(pieces: list[bytes]) -> None:
    data = b"".join(pieces)
    assert unpack_lzf(pack_lzf(data), len(data)) == data


def test_lzf_by_hand() -> None:
    # Two literals; a copy of 3 from 2 back, which overlaps itself; a long one of 7 + 4 + 2 from 1 back.
    assert unpack_lzf(b"\x01ab" + b"\x20\x01" + b"\xe0\x04\x00", 18) == b"ababa" + b"a" * 13


@pytest.mark.parametrize(
    ("data", "size", "match"),
    [
        (b"\x05ab", 6, "ends within 6 literal bytes"),
        (b"\x00a\x20", 4, "ends within a copy"),
        (b"\x00a\xe0\x01", 9, "ends within a copy"),
        (b"\x00a\x20\x07", 4, "begins 8 bytes back, after 1"),
        (b"\x00a", 2, "gives 1 bytes, not the 2"),
        (b"\x02abc", 2, "more than the 2"),
    ],
)
def test_lzf_that_is_damaged(data: bytes, size: int, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        unpack_lzf(data, size)


def body(form: str, rows: list[tuple[Any, ...]] = ROWS) -> bytes:
    """The values of `LIVOX` in a form."""
    if form == "ascii":
        return "".join(" ".join(map(str, row)) + "\n" for row in rows).encode()
    if form == "binary":
        return b"".join(struct.pack("<ffffH", *row) for row in rows)
    columns = zip("ffffH", zip(*rows, strict=True), strict=True)
    values = b"".join(struct.pack(f"<{len(rows)}{kind}", *column) for kind, column in columns)
    packed = pack_lzf(values)
    return struct.pack("<II", len(packed), len(values)) + packed


def write(path: Path, form: str, header: str = LIVOX) -> Path:
    path.write_bytes(header.format(form=form).encode() + body(form))
    return path


@pytest.mark.parametrize("form", ["ascii", "binary", "binary_compressed"])
def test_every_form_is_read(tmp_path: Path, form: str) -> None:
    path = write(tmp_path / "a.pcd", form)
    points = read_points(path)
    assert points.dtype == np.float32 and np.array_equal(points, EXPECTED)
    assert guess_format(path) == "pcd"
    sweep = read_sweep(path)
    assert np.array_equal(sweep[:, :4], EXPECTED[:, :4]) and not sweep[:, 4].any(), "a ring is no time lag"


def test_fields_in_any_order_with_others_between(tmp_path: Path) -> None:
    header = """VERSION .7
FIELDS rgb Z _ y timestamp x Reflectivity dt
SIZE 4 8 1 4 8 4 1 4
TYPE U F U F F F U F
COUNT 1 1 3 1 1 1 1 1
WIDTH 2
HEIGHT 1
POINTS 2
DATA binary
"""
    rows = [(99, 3.0, b"pad", 2.0, 1.7e9, 1.0, 200, 0.05), (98, 6.0, b"pad", 5.0, 1.7e9, 4.0, 7, 0.0)]
    made = b"".join(struct.pack("<Id3sfdfBf", *row) for row in rows)
    path = tmp_path / "a.pcd"
    path.write_bytes(header.encode() + made + b"\0" * 100)  # some writers fill the last page
    expected = np.array([[1, 2, 3, 200, 0.05], [4, 5, 6, 7, 0]], np.float32)
    assert np.array_equal(read_points(path), expected) and np.array_equal(read_sweep(path), expected)


def test_cells_without_an_echo_are_no_points(tmp_path: Path) -> None:
    text = (
        LIVOX.replace("ring\n", "label\n").format(form="ascii")
        + "nan nan nan nan 0\n1 2 3 4 5\n6 7 nan 8 9\n"
    )
    path = tmp_path / "a.pcd"
    path.write_text(text, encoding="utf-8")
    points = read_points(path)
    assert points.shape == (2, 4) and points[0].tolist() == [1, 2, 3, 4] and np.isnan(points[1, 2])


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("FIELDS x y z", "FIELDS a b c", "expected fields x, y and z, got a, b, c, intensity, ring"),
        ("POINTS 3", "POINTS 4", "POINTS 4, but WIDTH x HEIGHT 3"),
        ("SIZE 4 4", "SIZE 4 3", "'y' has TYPE F and SIZE 3"),
        ("SIZE 4 4", "SIZE 4", "5 FIELDS, 4 of SIZE"),
        ("COUNT 1", "COUNT 2", "one value of x for each point, got 2"),
        ("WIDTH 3", "WIDTH -3", "WIDTH of its PCD header is '-3'"),
        ("WIDTH 3", "WIDTH 999999999999", "points of 18 bytes"),
        ("DATA binary", "DATA zipped", "ascii, binary or binary_compressed, got 'zipped'"),
        ("SIZE 4 4 4 4 2\n", "", "lacks SIZE"),
        ("VERSION 0.7", "PLY", "got 'PLY'"),
        ("DATA binary\n", "", "which ends in DATA|got "),
        ("POINTS 3\n", "POINTS 3\nPOINTS 3\n", "once each, got 'POINTS'"),
    ],
)
def test_headers_that_do_not_serve(tmp_path: Path, old: str, new: str, match: str) -> None:
    header = LIVOX.format(form="binary").replace(old, new)
    if "99999" in new:
        header = header.replace("POINTS 3", "POINTS 999999999999")
    path = tmp_path / "a.pcd"
    path.write_bytes(header.encode() + body("binary"))
    with pytest.raises(LidarError, match=match) as caught:
        read_points(path)
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize("form", ["ascii", "binary", "binary_compressed"])
def test_values_that_are_cut_or_too_many(tmp_path: Path, form: str) -> None:
    whole = write(tmp_path / "a.pcd", form).read_bytes()
    for data in (whole[:-6], whole + b" 1"):
        path = tmp_path / "b.pcd"
        path.write_bytes(data)
        with pytest.raises(LidarError, match=re.escape(str(path)) + ".*(expected|unpacked)"):
            read_points(path)


def test_words_that_are_no_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.pcd"
    path.write_bytes(LIVOX.format(form="ascii").encode() + body("ascii").replace(b"17.0", b"many"))
    with pytest.raises(LidarError, match="expected numbers"):
        read_points(path)
