# SPDX-License-Identifier: Apache-2.0
"""Errors that a user can meet, and that tests of their modules do not provoke: `make coverage` lists such."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import spconv.pytorch as spconv
import torch
from torch import nn

import quant
import scn_fx
from scn_fx.cli.report import command as report_command
from scn_fx.errors import (
    CalibrationError,
    CaptureError,
    CompareError,
    LidarError,
    MissingPackageError,
    OnnxError,
    SiteError,
)
from scn_fx.exporting import export_onnx
from scn_fx.files.settings_files import read_mapping
from scn_fx.geometry import ConvGeometry
from scn_fx.lidar import CENTERPOINT_GRID, read_grid, voxelize
from scn_fx.quant.frame_files import FrameFiles
from scn_fx.quant.weights import load_weights
from scn_fx.runtime.file_graph import file_graph
from tests.cli.conftest import MODEL, invoke
from tests.quant.graphs import frame, residual, two_outputs

FRAME = frame(0)


def without(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """The package is not installed, and nothing that imports it has been imported."""
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, names[0], None)


class Grouped(nn.Module):
    """A convolution with what no operator expresses."""

    def __init__(self, **changes: Any) -> None:
        super().__init__()
        self.conv = spconv.SubMConv3d(3, 4, 3, bias=False)
        for name, value in changes.items():
            setattr(self.conv, name, value)

    def forward(self, features: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        x = spconv.SparseConvTensor(features, indices, [6, 12, 12], 1)
        return self.conv(x).features


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"groups": 2}, "conv.*groups=2; only groups=1"),
        ({"weight": nn.Parameter(torch.zeros(3, 3, 3, 3, 4))}, r"weight of shape .*expected \[out, .*, in\]"),
    ],
)
def test_layers_that_no_operator_expresses(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(CaptureError, match=match):
        scn_fx.capture(Grouped(**changes).eval(), FRAME)


@pytest.mark.parametrize(
    ("arguments", "code", "match"),
    [
        (("run", "a.onnx", "--frames", "b", "--points", "c.bin"), 1, "Give either --frames, or one frame"),
        (("run", "a.onnx", "--frames", "tests.test_rare_errors:nothing"), 1, "gives no frame"),
        (("export", "--model", MODEL, "--float", "--precision", "fp16"), 2, "leave it out with --float"),
        (("report", "a.onnx", "--frames", "tests.test_rare_errors:nothing"), 1, "There are no frames"),
    ],
)
def test_commands(
    arguments: tuple[str, ...], code: int, match: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    export_onnx(residual(), tmp_path / "a.onnx", "torchscript")
    assert match in invoke(*arguments, code=code).output


def nothing() -> list[Any]:
    """Frames, but none."""
    return []


def test_a_report_needs_matplotlib(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(report_command, "find_spec", lambda name: None)
    assert "pip install 'scn-fx[plot]'" in invoke("report", "a.onnx", code=1).stderr


def test_packages_that_a_function_needs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("model: x")
    without(monkeypatch, "yaml", "scn_fx.files.yaml_text")
    with pytest.raises(MissingPackageError, match=r"YAML needs .* 'scn-fx\[cli\]'"):
        read_mapping(tmp_path / "a.yaml")
    without(monkeypatch, "onnx")
    with pytest.raises(MissingPackageError, match=r"as a graph needs .* 'scn-fx\[export\]'"):
        file_graph(tmp_path / "a.onnx")


def test_grids_and_points(tmp_path: Path) -> None:
    points = np.zeros((3, 5), np.float32)
    with pytest.raises(LidarError, match="max_points is a number of points >= 1, or None, got 0"):
        voxelize(points, CENTERPOINT_GRID, max_points=0)
    (tmp_path / "a.yaml").write_text("DATA_CONFIG: {_BASE_CONFIG_: a.yaml}")
    with pytest.raises(LidarError, match="or a circle of them"):
        read_grid(tmp_path / "a.yaml")
    points.tofile(tmp_path / "a.bin")
    with pytest.raises(LidarError, match="expected a voxel grid for them, got none"):
        next(iter(FrameFiles.find(tmp_path / "a.bin", point_format="float32x5")))


@pytest.mark.parametrize(
    ("value", "match"),
    [
        (torch.ones(1, dtype=torch.complex64), "expected plain real numbers, got torch.complex64"),
    ],
)
def test_ranges_of_checkpoints(value: object, match: str) -> None:
    state = {
        f"{name}._{kind}_quantizer._amax": value if kind == "input" else torch.ones(1)
        for name in ("conv_input.0", "conv1.0.conv1", "conv1.0.conv2", "conv1.0.quant_add", "extra_conv.0")
        for kind in ("input", "weight")
    }
    with pytest.raises(CalibrationError, match=match):
        quant.load_pytorch_quantization(residual(), state)


def test_a_quantizer_that_is_there_twice() -> None:
    key = "conv1.0.conv1._input_quantizer._amax"
    state = {key: torch.ones(1), f"_orig_mod.{key}": torch.ones(1)}
    with pytest.raises(CalibrationError, match="one quantizer twice"):
        quant.load_pytorch_quantization(residual(), state)


def test_calls_that_cannot_be_meant(tmp_path: Path) -> None:
    graph = residual()
    with pytest.raises(CalibrationError, match="max_evaluations must be a whole number, at least 20, got 3"):
        quant.choose_precision(graph, [FRAME], budget="sqnr>=20", max_evaluations=3)
    torch.save({"a": torch.ones(1)}, tmp_path / "a.pth")
    with pytest.raises(CalibrationError, match="ReLU has no weights to load"):
        load_weights(nn.ReLU(), tmp_path / "a.pth")
    triples = ((3, 3, 3), (1, 1, 1), (1, 1, 1), (1, 1, 1), (0, 0, 0), (6, 6, 6), (6, 6, 6))
    with pytest.raises(SiteError, match="at most one of the three"):
        ConvGeometry(*triples, subm=True, transposed=True)


def test_files_and_engines(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    export_onnx(residual(), path, "torchscript")
    engine = scn_fx.Engine(path)
    with pytest.raises(CompareError, match="The graph has 2 outputs, the file 1"):
        scn_fx.compare(two_outputs(), engine, [FRAME])
    model = onnx.load(path)
    for entry in model.metadata_props:
        entry.value = "zxy" if entry.key == "scn_fx.axes" else entry.value
    with pytest.raises(OnnxError, match=r"expected scn_fx\.axes to be one of .*got 'zxy'"):
        _ = scn_fx.Engine(model.SerializeToString()).network_grid
