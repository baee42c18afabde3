# SPDX-License-Identifier: Apache-2.0
"""The commands with a network of two dimensions: points become pillars, and its files have three columns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from scn_fx import Engine
from scn_fx.lidar import parse_grid, read_sweep, synthetic_points, voxelize, write_tensor
from scn_fx.zoo import PillarNetEncoder
from tests.capture.frames import randomise
from tests.cli.conftest import invoke, invoke_json

MODEL = "tests.cli.test_pillars:narrow"
GRID = "-12.8,-12.8,-5,12.8,12.8,3,0.4,0.4,8"


def narrow() -> torch.nn.Module:
    """PillarNet's encoder with a few channels."""
    torch.manual_seed(0)
    return randomise(PillarNetEncoder(5, (64, 64), (8, 8, 12, 16)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep, its pillars as tensor files, a cache of the model and its files of both exporters."""
    folder = tmp_path_factory.mktemp("pillars")
    sweep, grid = folder / "0.bin", folder / "grid.yaml"
    synthetic_points(0, sweeps=2)[::9].tofile(sweep)
    grid.write_text("point_range: [-12.8, -12.8, -5, 12.8, 12.8, 3]\nvoxel_size: [0.4, 0.4, 8]\nextra_z: 0\n")
    model = ("--model", MODEL, "--grid", grid)
    invoke("calibrate", *model, "--frames", sweep, "-o", folder / "cache.json", "--method", "max")
    for exporter in ("dynamo", "torchscript"):
        file = folder / f"{exporter}.onnx"
        invoke("export", *model, "--cache", folder / "cache.json", "-o", file, "--exporter", exporter)
    engine = Engine(folder / "dynamo.onnx")
    voxels = voxelize(read_sweep(sweep), engine.grid)
    write_tensor(folder / "frame.features.tensor", voxels.features)
    write_tensor(folder / "frame.indices.tensor", engine.network_grid.columns(voxels.indices))
    write_tensor(folder / "wide.tensor", np.asarray(voxels.indices))
    return folder


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
def test_points_and_pillars_give_one_result(folder: Path, exporter: str) -> None:
    file, features = folder / f"{exporter}.onnx", folder / "frame.features.tensor"
    assert "scn_fx.ndim = 2" in invoke("inspect", file).output
    invoke("run", file, "--points", folder / "0.bin", "-o", folder / "points.npz")
    given = ("--features", features, "--indices", folder / "frame.indices.tensor")
    invoke("run", file, *given, "-o", folder / "pillars.npz")
    one, other = (np.load(folder / name)["dense"] for name in ("points.npz", "pillars.npz"))
    assert one.shape == (1, 16, 8, 8)
    assert one.any() and np.array_equal(one, other)
    text = invoke("run", file, "--features", features, "--indices", folder / "wide.tensor", code=1).output
    assert "indices must be int32 [N, 3] (batch, y, x)" in " ".join(text.split())


def test_the_synthetic_frame_becomes_pillars(folder: Path) -> None:
    found = invoke_json("run", folder / "dynamo.onnx")
    assert found["outputs"][0]["shape"] == [1, 16, 8, 8]


def test_compare_takes_points_and_pillars(folder: Path) -> None:
    model = ("--model", MODEL, "--grid", folder / "grid.yaml", "--cache", folder / "cache.json")
    for frames in (folder / "0.bin", folder / "frame.features.tensor"):
        found = invoke_json("compare", folder / "dynamo.onnx", *model, "--frames", frames)
        assert found["ok"] is True


def test_a_grid_of_several_layers_is_refused() -> None:
    assert parse_grid(GRID).spatial_shape == (2, 64, 64)  # extra_z is 1 unless a file says otherwise
    text = invoke(
        "calibrate", "--model", MODEL, "--grid", GRID, "--frames", __file__, "-o", "x", code=1
    ).output
    assert "1 x 64 x 64" in " ".join(text.split())
