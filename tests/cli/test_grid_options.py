# SPDX-License-Identifier: Apache-2.0
"""`--grid` and `--format` of the commands: the file's grid by default, contradictions refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from scn_fx import Engine
from scn_fx.lidar import read_sweep, synthetic_points, voxelize
from tests.cli.conftest import invoke, invoke_json
from tests.test_grid import HALL, MOVED, captured

MODEL = "tests.test_grid:captured"
TURNED = "tests.cli.test_grid_options:turned"
UNKNOWN = "tests.cli.test_grid_options:unknown"


def turned() -> torch.fx.GraphModule:
    """A model whose index columns are x, y, z."""
    return captured(HALL, "xyz")


def unknown() -> torch.fx.GraphModule:
    """A model that does not say its grid."""
    return captured(None)


def numbers(grid: object) -> str:
    return ",".join(f"{value:g}" for value in (*grid.point_range, *grid.voxel_size))  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sweeps with a time lag (float32 x 5), and float files of the three models."""
    folder = tmp_path_factory.mktemp("grid")
    (folder / "sweeps").mkdir()
    for seed in (0, 1):
        synthetic_points(seed, sweeps=2)[::9].tofile(folder / "sweeps" / f"{seed}.bin")
    for name, model, exporter in (
        ("scn", MODEL, "dynamo"),
        ("script", MODEL, "torchscript"),
        ("turned", TURNED, "dynamo"),
        ("unknown", UNKNOWN, "dynamo"),
    ):
        invoke("export", "--model", model, "--float", "-o", folder / f"{name}.onnx", "--exporter", exporter)
    return folder


def test_files_of_both_exporters_say_the_grid(folder: Path) -> None:
    for name in ("scn", "script"):
        text = invoke("inspect", folder / f"{name}.onnx").output
        assert "scn_fx.grid.point_range = -8.0,-4.0,-1.0,8.0,4.0,1.0" in text
        assert Engine(folder / f"{name}.onnx").grid == HALL
    assert "scn_fx.grid" not in invoke("inspect", folder / "unknown.onnx").output


@pytest.mark.parametrize("name", ["scn", "script", "turned"])
def test_run_takes_the_grid_and_the_columns_of_the_file(folder: Path, name: str) -> None:
    points, file = folder / "sweeps" / "0.bin", folder / f"{name}.onnx"
    invoke("run", file, "--points", points, "-o", folder / "out.npz")
    engine = Engine(file)
    voxels = voxelize(read_sweep(points), HALL)
    assert voxels.features[:, 4].max() > 0 and voxels.surplus > 0, "time lag and max_points are kept"
    expected = engine(voxels.features, engine.network_grid.columns(voxels.indices))
    assert np.array_equal(np.load(folder / "out.npz")["dense"], expected) and expected.any()
    found = invoke_json("run", file)
    assert found["frame"].startswith("synthetic") and found["voxels"] > 100


@pytest.mark.parametrize(
    ("file", "options", "words"),
    [
        (
            "scn",
            ("--points", "{bin}", "--grid", numbers(MOVED)),
            ["--grid is the grid", "(-7, -4, -1)", "takes"],
        ),
        ("scn", ("--grid", "kitti"), ["--grid is the grid kitti", "(-8, -4, -1)"]),
        ("unknown", ("--points", "{bin}"), ["does not record one", "9 x 40 x 80", "Pass --grid"]),
        ("unknown", ("--points", "{bin}", "--grid", "kitti"), ["takes sites in 9 x 40 x 80"]),
        ("unknown", (), ["The synthetic frame", "9 x 40 x 80", "Or give a frame"]),
        ("scn", ("--points", "{bin}", "--grid", "mars"), ["preset (centerpoint, kitti", "got 'mars'"]),
        ("scn", ("--points", "{bin}", "--grid", "1,2"), ["nine", "got 2"]),
        ("scn", ("--points", "{bin}", "--grid", "gone.yaml"), ["gone.yaml: expected a file"]),
        ("scn", ("--points", "{bin}", "--format", "nuscenes"), ["ring would have fractions", "float32x5"]),
        ("scn", ("--format", "nuscenes"), ["give --points as well"]),
    ],
)
def test_run_refuses(folder: Path, file: str, options: tuple[str, ...], words: list[str]) -> None:
    given = [option.format(bin=folder / "sweeps" / "0.bin") for option in options]
    error = invoke("run", folder / f"{file}.onnx", *given, code=1).stderr
    assert all(word in error for word in words) and error.count("\n") == 1, error


def test_a_grid_for_a_file_that_says_none(folder: Path) -> None:
    points = ("--points", folder / "sweeps" / "0.bin")
    a = invoke_json("run", folder / "unknown.onnx", *points, "--grid", numbers(HALL))
    (folder / "grid.yaml").write_text("point_range: [-8, -4, -1, 8, 4, 1]\nvoxel_size: [0.2, 0.2, 0.25]\n")
    b = invoke_json("run", folder / "unknown.onnx", *points, "--grid", folder / "grid.yaml")
    assert a["voxels"] == b["voxels"] == len(voxelize(read_sweep(points[1]), HALL))


def test_calibrate_and_compare_take_the_grid_of_the_model(folder: Path) -> None:
    frames, cache = ("--frames", folder / "sweeps"), folder / "scn.json"
    invoke("calibrate", "--model", MODEL, *frames, "-o", cache, "--method", "max")
    invoke("calibrate", "--model", TURNED, *frames, "-o", folder / "turned.json", "--method", "max")
    for name, model in (("scn", MODEL), ("turned", TURNED)):
        assert invoke_json("compare", folder / f"{name}.onnx", "--model", model, *frames)["ok"]
        assert invoke_json("compare", folder / f"{name}.onnx", "--model", model)["ok"]
    moved = ("--grid", numbers(MOVED))
    calibrate = ("calibrate", *frames, "-o", cache, "--method", "max")
    error = invoke(*calibrate, "--model", MODEL, *moved, code=1).stderr
    assert "(-7, -4, -1)" in error and "(-8, -4, -1)" in error
    assert "does not record one" in invoke(*calibrate, "--model", UNKNOWN, code=1).stderr
    invoke(*calibrate, "--model", UNKNOWN, *moved)
    compare = ("compare", folder / "scn.onnx", *frames)
    assert "--grid is the grid" in invoke(*compare, "--model", MODEL, *moved, code=1).stderr
    assert (
        "compare the model that it was exported from"
        in invoke(*compare, "--model", "tests.cli.test_grid_options:moved", code=1).stderr
    )
    assert invoke_json(*compare, "--model", UNKNOWN)["ok"], "the model takes the grid of the file"


def moved() -> torch.fx.GraphModule:
    """The model, said to be trained elsewhere."""
    return captured(MOVED)


def test_export_records_the_given_grid_and_checks_it(folder: Path, tmp_path: Path) -> None:
    export = ("export", "--float", "-o", tmp_path / "a.onnx")
    invoke(*export, "--model", UNKNOWN, "--grid", numbers(MOVED))
    assert Engine(tmp_path / "a.onnx").grid == MOVED
    assert (
        "takes sites in 9 x 40 x 80" in invoke(*export, "--model", UNKNOWN, "--grid", "waymo", code=1).stderr
    )
    assert "(-8, -4, -1)" in invoke(*export, "--model", MODEL, "--grid", numbers(MOVED), code=1).stderr


def test_a_forward_that_takes_the_grid_needs_one(tmp_path: Path) -> None:
    model = "tests.cli.test_grid_options:takes_grid"
    error = invoke("export", "--float", "--model", model, "-o", tmp_path / "a.onnx", code=1).stderr
    assert "(features, coors, batch_size, input_shape)" in error and "--grid (grid=) takes a preset" in error


def takes_grid() -> torch.nn.Module:
    """CenterPoint's own signature, without a method that gives arguments."""

    class Encoder(torch.nn.Module):
        def __init__(self) -> None:
            import spconv.pytorch as sp

            super().__init__()
            self.conv = sp.SubMConv3d(5, 8, 3)

        def forward(self, features: object, coors: object, batch_size: int, input_shape: object) -> object:
            return features

    return Encoder()


def test_frames_of_graphs_without_grid_stay_as_they_were(files: dict[str, Path]) -> None:
    """Voxels in files do not say their grid: nothing is asked for them."""
    assert invoke_json("run", files["int8"], "--features", files["features"], "--indices", files["indices"])
