# SPDX-License-Identifier: Apache-2.0
"""The C++ example from a file of points to the map: it has the bits of Python's voxels and engine."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import scn_fx
from scn_fx.lidar import VoxelGrid, read_tensor, voxelize
from tests import cpp_programs
from tests.oracle.builder import build_onnx, convolution, node
from tests.oracle.compare import assert_same_bits
from tests.test_cpp_example import fnv1a

GRID = VoxelGrid((-6.4, -3.2, -2.0, 6.4, 3.2, 1.2), (0.2, 0.1, 0.4))
SHAPE = GRID.spatial_shape


def _network(channels: int = 4, dense: bool = True, recorded: bool = False) -> bytes:
    rng = np.random.default_rng(1)
    weight = rng.normal(0, 0.2, (16, 3, 3, 3, channels)).astype(np.float16)
    ranges: dict[str, Any] = {"precision": "int8", "input_range": 6.0, "weight_ranges": [0.6] * 16}
    half = {"input_shape": SHAPE, "output_shape": tuple((n + 1) // 2 for n in SHAPE)}
    pieces = [
        convolution("first", "features", "x", weight, **half, stride=(2, 2, 2), padding=(1, 1, 1), **ranges)
    ]
    if dense:
        z, y, x = half["output_shape"]
        shape = {"input_spatial_shape": (z, y, x), "output_shape": (1, 16, z, y, x)}
        pieces.append(node("ScatterDense", "dense", ["x"], "d", format="zyx", **shape))
        pieces.append(node("Reshape", "map", ["d"], "map", dims=(1, 16 * z, y, x)))
    metadata = GRID.to_text() if recorded else None
    return build_onnx(*pieces, outputs=["map" if dense else "x"], metadata=metadata)


def _points(columns: int, dtype: str) -> np.ndarray:
    """Points in and around the grid, several in a voxel, some on the faces of voxels."""
    rng = np.random.default_rng(columns)
    points = rng.uniform(-7, 7, (3000, columns)).astype(dtype)
    points[:, 2] = rng.uniform(-2.5, 1.5, 3000)
    points[:1000, :3] = points[1000:2000, :3]
    points[:500, 0] = np.round(points[:500, 0] * 5) / 5
    return points


@pytest.fixture(scope="module")
def program() -> Path:
    return cpp_programs.program("points_to_bev")


def _run(program: Path, folder: Path, *changed: str, **named: str) -> subprocess.CompletedProcess[str]:
    arguments = {
        "model": "scn.onnx",
        "points": "points.bin",
        "format": "float32x4",
        "range": ",".join(map(str, GRID.point_range)),
        "voxel": ",".join(map(str, GRID.voxel_size)),
        "output": "bev.npy",
    } | named
    return subprocess.run(
        [program, *arguments.values(), *changed], cwd=folder, capture_output=True, text=True
    )


@pytest.mark.parametrize("columns", [4, 5, 6])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("output", ["bev.npy", "bev.tensor"])
def test_the_map_is_that_of_python(
    program: Path, tmp_path: Path, columns: int, dtype: str, output: str
) -> None:
    (tmp_path / "scn.onnx").write_bytes(_network())
    points = _points(columns, dtype)
    points.tofile(tmp_path / "points.bin")
    voxels = voxelize(points[:, :4].astype(np.float32), GRID)
    assert 500 < len(voxels) < 3000 and voxels.dropped > 100 and voxels.counts.max() > 1
    expected = scn_fx.Engine(tmp_path / "scn.onnx")(*voxels)
    done = _run(program, tmp_path, "1", format=f"{dtype}x{columns}", output=output)
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / output) if output.endswith("npy") else read_tensor(tmp_path / output)
    assert found.dtype == np.float16 and np.count_nonzero(found) > 1000
    assert_same_bits(found, expected)
    first, second, third = done.stdout.splitlines()
    assert f"FNV-1a {fnv1a(expected)}" in first and third == f"saved {output}"
    assert re.fullmatch(
        r"3000 points to the map in \d+\.\d\d ms, the best of 3 runs; engine loaded in \d+\.\d\d ms "
        r"\(threads: 1, \w+\)",
        second,
    )


@pytest.mark.parametrize("plan", [False, True])
def test_the_grid_may_be_the_one_that_the_file_records(program: Path, tmp_path: Path, plan: bool) -> None:
    points = _points(4, "float32")
    points.tofile(tmp_path / "points.bin")
    (tmp_path / "scn.onnx").write_bytes(_network(recorded=True))
    if plan:
        scn_fx.save_plan(tmp_path / "scn.onnx", tmp_path / "scn.plan")
    model = "scn.plan" if plan else "scn.onnx"
    done = _run(program, tmp_path, model=model, range="-", voxel="-")
    assert done.returncode == 0, done.stderr
    engine = scn_fx.Engine(tmp_path / model)
    assert_same_bits(np.load(tmp_path / "bev.npy"), engine.run_points(points))
    assert_same_bits(engine.run_points(points), engine(*voxelize(points, GRID)))


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"model": "none.onnx"}, "none.onnx: Cannot open the ONNX file"),
        (
            {"model": "sparse.onnx"},
            "sparse.onnx: its first output is no map [batch, channels, y, x] but sparse",
        ),
        ({"model": "wide.onnx"}, "the network reads 6 columns, float32x4 has 4."),
        ({"points": "none.bin"}, "Cannot open 'none.bin'"),
        ({"points": "cut.bin"}, "cut.bin: expected a multiple of 16 bytes for float32x4, got 47999"),
        ({"points": "nan.bin"}, "nan.bin: point 7 holds NaN or infinity"),
        ({"format": "float32x7"}, "FORMAT must be float32x4 to float32x6"),
        ({"format": "kitti"}, "FORMAT must be float32x4 to float32x6"),
        ({"range": "0,0,0,1,1"}, "RANGE must be 6 numbers with commas between them, got '0,0,0,1,1'."),
        ({"voxel": "0.1,0.1,x"}, "VOXEL must be 3 numbers"),
        ({"voxel": "0.1,0.1,0"}, "a voxel edge > 0 and a whole number of voxels along"),
        ({"voxel": "0.1,0.1,0.3"}, "a voxel edge > 0 and a whole number of voxels along"),
        ({"range": "-", "voxel": "-"}, "grid"),
        ({"output": "bev.png"}, "'bev.png' must end in .npy or .tensor"),
        ({"output": "nowhere/bev.npy"}, "Cannot write 'nowhere/bev.npy'"),
    ],
)
def test_wrong_input_is_an_error_that_says_so(
    program: Path, tmp_path: Path, named: dict[str, str], message: str
) -> None:
    points = _points(4, "float32")
    points.tofile(tmp_path / "points.bin")
    (tmp_path / "cut.bin").write_bytes(points.tobytes()[:-1])
    points[7, 1] = np.nan
    points.tofile(tmp_path / "nan.bin")
    (tmp_path / "scn.onnx").write_bytes(_network())
    (tmp_path / "sparse.onnx").write_bytes(_network(dense=False))
    (tmp_path / "wide.onnx").write_bytes(_network(channels=6))
    done = _run(program, tmp_path, **named)
    assert done.returncode == 1 and message in done.stderr, done.stderr
    assert done.stderr.startswith("Error: ")


def test_no_arguments_show_the_usage(program: Path) -> None:
    done = subprocess.run([program], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("usage: points_to_bev scn.onnx points.bin")
