# SPDX-License-Identifier: Apache-2.0
"""The ROS 2 skeleton: it compiles against stubs; what it reads of a PointCloud2 is what numpy reads."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cpp_programs import ROOT

HERE = Path(__file__).parent
EXAMPLES = ROOT / "examples"
STRICT = ("-std=c++17", "-Wall", "-Wextra", "-Wpedantic", "-Werror")
TYPES = ("i1", "u1", "i2", "u2", "i4", "u4", "f4", "f8")
"""In the order of sensor_msgs/PointField, whose numbers begin with 1."""
INCLUDE = ("-I", HERE / "stubs", "-I", EXAMPLES / "ros2" / "src")


def _compile(compiler: str, *arguments: object) -> None:
    done = subprocess.run(
        [compiler, *map(str, (*STRICT, *INCLUDE, *arguments))], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("ros2") / "read_cloud"
    _compile("c++", HERE / "read_cloud.cpp", "-o", made)
    return made


@pytest.mark.parametrize("compiler", [name for name in ("g++", "clang++") if shutil.which(name)])
def test_the_node_compiles_against_stubs(compiler: str) -> None:
    public = ("-I", ROOT / "scn_fx" / "csrc" / "include", "-I", EXAMPLES / "cpp")
    _compile(compiler, *public, "-fsyntax-only", EXAMPLES / "ros2" / "src" / "bev_node.cpp")


def _cloud(records: np.ndarray, row_padding: int = 0, **changed: int) -> bytes:
    """A cloud as the program reads it: its fields are those of the dtype of `records` [height, width]."""
    height, width = records.shape
    fields = {name: records.dtype.fields[name] for name in records.dtype.names or ()}
    big = any(kind.byteorder == ">" for kind, _ in fields.values())
    step = records.dtype.itemsize
    sizes = {"height": height, "width": width, "point_step": step, "row_step": width * step + row_padding}
    sizes |= {name: number for name, number in changed.items() if name in sizes}
    head = struct.pack("<6I", *sizes.values(), big, len(fields))
    for name, (kind, offset) in fields.items():
        number = TYPES.index(kind.str[1:]) + 1
        head += struct.pack("<4I", changed.get("offset", offset), number, 1, len(name)) + name.encode()
    return head + b"".join(row.tobytes() + b"\xff" * row_padding for row in records)


def _read(program: Path, folder: Path, cloud: bytes, *columns: str) -> tuple[np.ndarray, int]:
    (folder / "cloud").write_bytes(cloud)
    done = subprocess.run(
        [program, folder / "cloud", folder / "points", *columns], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return np.fromfile(folder / "points", np.float32).reshape(-1, len(columns)), int(done.stdout)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", TYPES)
def test_fields_of_every_type_in_both_byte_orders(
    program: Path, tmp_path: Path, kind: str, order: str
) -> None:
    rng = np.random.default_rng(TYPES.index(kind))
    dtype = np.dtype(
        {
            "names": ["x", "y", "z", "intensity"],
            "formats": [f"{order}f4"] * 3 + [f"{order}{kind}"],
            "offsets": [0, 4, 8, 17],  # nothing says that a field is aligned
            "itemsize": 29,
        }
    )
    records = np.frombuffer(rng.bytes(29 * 12), dtype).copy().reshape(3, 4)
    for name in "xyz":
        records[name] = rng.normal(size=(3, 4))
    if kind.startswith("f"):
        records["intensity"] = rng.normal(size=(3, 4))
    points, left_out = _read(program, tmp_path, _cloud(records), "x", "y", "z", "intensity")
    expected = np.stack([records[name].astype(np.float32).ravel() for name in dtype.names or ()], 1)
    assert left_out == 0
    np.testing.assert_array_equal(points, expected)


def _plain(height: int = 2, width: int = 5) -> np.ndarray:
    rng = np.random.default_rng(height)
    records = np.zeros((height, width), [(name, "<f4") for name in ("x", "y", "z", "time")])
    for name in records.dtype.names or ():
        records[name] = rng.normal(size=(height, width))
    return records


def test_rows_may_be_padded_and_columns_chosen(program: Path, tmp_path: Path) -> None:
    records = _plain()
    points, _ = _read(program, tmp_path, _cloud(records, row_padding=7), "time", "0", "x")
    np.testing.assert_array_equal(points[:, 0], records["time"].ravel())
    np.testing.assert_array_equal(points[:, 1], 0)
    np.testing.assert_array_equal(points[:, 2], records["x"].ravel())


def test_points_that_are_not_finite_are_left_out_and_counted(program: Path, tmp_path: Path) -> None:
    records = _plain()
    records["y"][0, 1], records["x"][1, 4], records["time"][1, 0] = np.nan, np.inf, np.nan
    points, left_out = _read(program, tmp_path, _cloud(records), "x", "y", "z")
    assert left_out == 2 and len(points) == 8
    points, left_out = _read(program, tmp_path, _cloud(records), "x", "y", "z", "time")
    assert left_out == 3 and len(points) == 7


def test_a_cloud_of_no_points(program: Path, tmp_path: Path) -> None:
    points, left_out = _read(program, tmp_path, _cloud(_plain(1, 0)), "x", "y", "z")
    assert points.shape == (0, 3) and left_out == 0


@pytest.mark.parametrize(
    ("changed", "columns", "message"),
    [
        ({}, ("x", "ring"), "has no field 'ring', it has 'x', 'y', 'z', 'time'. Set the parameter `columns`"),
        (
            {"offset": 13},
            ("x",),
            "'x' of the cloud has datatype 7 at offset 13, which does not fit into records",
        ),
        ({"offset": 2**32 - 2}, ("x",), "at offset 4294967294, which does not fit"),
        ({"row_step": 79}, ("x",), "2 rows of 79 bytes for 5 points of 16 bytes, and 160 bytes in all"),
        ({"height": 3}, ("x",), "3 rows of 80 bytes for 5 points of 16 bytes, and 160 bytes in all"),
        ({"width": 2**32 - 1}, ("x",), "which do not fit together. Check who publishes it"),
        ({"point_step": 0}, ("x",), "points of 0 bytes"),
    ],
)
def test_clouds_that_contradict_themselves_are_refused(
    program: Path, tmp_path: Path, changed: dict[str, Any], columns: tuple[str, ...], message: str
) -> None:
    (tmp_path / "cloud").write_bytes(_cloud(_plain(), **changed))
    done = subprocess.run(
        [program, tmp_path / "cloud", tmp_path / "points", *columns], capture_output=True, text=True
    )
    assert done.returncode == 1 and message in done.stderr
