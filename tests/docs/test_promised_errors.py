# SPDX-License-Identifier: Apache-2.0
"""What pages promise to refuse is refused, with the error that fits; every class of errors is among it."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import quant
import scn_fx
from scn_fx import errors
from scn_fx.exporting import export_onnx
from scn_fx.files.settings_files import read_mapping
from scn_fx.lidar import GRIDS, VoxelGrid, demo_frames, read_points, voxelize
from tests.docs.pages import ROOT
from tests.quant.graphs import frame, residual

FEATURES, INDICES = (tensor.numpy() for tensor in frame(0))


@dataclass(frozen=True)
class Case:
    """An empty folder, a float16 file of a residual block with a dense map, what changes the surroundings."""

    folder: Path
    model: Path
    patch: pytest.MonkeyPatch

    def engine(self, **options: object) -> scn_fx.Engine:
        return scn_fx.Engine(self.model, **options)

    def edited(self, change: Callable[[onnx.ModelProto], None]) -> scn_fx.Engine:
        """An engine of the file after a change."""
        loaded = onnx.load(self.model)
        change(loaded)
        return scn_fx.Engine(loaded.SerializeToString())


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("promises") / "a.onnx"
    export_onnx(residual(), path, "torchscript")
    return path


def bound_of_ten(proto: onnx.ModelProto) -> None:
    for made in proto.graph.node[0].attribute:
        if made.name == "output_bound":
            made.i = 10


def infinite_weight(proto: onnx.ModelProto) -> None:
    tensor = proto.graph.initializer[0]
    tensor.raw_data = np.float16([np.inf]).tobytes() + tensor.raw_data[2:]


def compared_with_another(case: Case) -> None:
    scn_fx.compare(residual(seed=1), case.engine(), [frame(0)]).check()


def export_without_ranges(case: Case) -> None:
    graph = residual()
    for node in graph.graph.nodes:
        if node.kwargs.get("name") == "conv1.0.conv1":
            node.update_kwarg("precision", "int8")
    export_onnx(graph, case.folder / "a.onnx", "torchscript")


def large_weight_in_a_file(case: Case) -> None:
    graph = residual()
    graph.extra_conv_0_weight[0, 0, 0, 0, 0] = 7e4
    export_onnx(graph, case.folder / "a.onnx", "torchscript")


class Deciding(nn.Module):
    """Goes another way where a value is large."""

    def forward(self, features: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        return features if features.sum() > 0 else features + 1


def a_pipe(case: Case) -> None:
    os.mkfifo(case.folder / "pipe.json")
    read_mapping(case.folder / "pipe.json")


def nested(case: Case) -> None:
    (case.folder / "deep.json").write_text("[" * 65 + "]" * 65)
    read_mapping(case.folder / "deep.json")


def a_key_twice(case: Case) -> None:
    (case.folder / "twice.json").write_text('{"model": 1, "model": 2}')
    read_mapping(case.folder / "twice.json")


def missing_instruction_set(case: Case) -> None:
    case.patch.setenv("SCN_FX_ISA", "altivec")
    case.engine()


def missing_data(case: Case) -> None:
    case.patch.setenv("SCN_FX_DATA", str(case.folder / "gone"))
    demo_frames()


def missing_package(case: Case) -> None:
    case.patch.setitem(sys.modules, "onnxscript", None)
    case.patch.delitem(sys.modules, "scn_fx.onnx.translations", raising=False)
    export_onnx(residual(), case.folder / "a.onnx", "dynamo")


def raw_points_of_no_format(case: Case) -> None:
    (case.folder / "frame.bin").write_bytes(b"\x01" * 37)
    read_points(case.folder / "frame.bin")


def nan_points(case: Case) -> None:
    voxelize(np.full((3, 5), np.nan, np.float32), GRIDS["centerpoint"])


def another_grid(case: Case) -> None:
    graph = residual()
    scn_fx.input_grid.set_grid(graph, VoxelGrid((0, 0, 0, 12, 12, 5), (1, 1, 1)))
    points = np.zeros((3, 5), np.float32)
    quant.calibrate(graph, [voxelize(points, VoxelGrid((-6, -6, 0, 6, 6, 5), (1, 1, 1)))], progress=False)


def damaged_plan(case: Case) -> None:
    path = case.folder / "a.plan"
    scn_fx.save_plan(case.model, path)
    path.write_bytes(path.read_bytes()[:-9])
    scn_fx.Engine(path)


def no_room(case: Case) -> None:
    quant.calibrate(residual(), [frame(0)], cache=case.folder / "gone" / "c.json", progress=False)


PROMISES: list[tuple[str, str, type[errors.ScnError], Callable[[Case], object]]] = [
    ("explanation/numerics.md", "NaN, infinity and values beyond float16 are an error of the call",
     errors.NonFiniteError, lambda c: c.engine()(FEATURES * np.float32(np.nan), INDICES)),
    ("explanation/numerics.md", "float16 is an error that names the layer", errors.OverflowedError,
     lambda c: c.engine()(np.full_like(FEATURES, 6e4), INDICES)),
    ("explanation/numerics.md", "must be finite; the error names the node", errors.OnnxError,
     lambda c: c.edited(infinite_weight)),
    ("explanation/numerics.md", "duplicate sites and more sites than a layer's `output_bound` are errors",
     errors.SiteError, lambda c: c.engine()(FEATURES, INDICES * 0)),
    ("explanation/numerics.md", "duplicate sites and more sites than a layer's `output_bound` are errors",
     errors.BoundError, lambda c: c.edited(bound_of_ten)(FEATURES, INDICES)),
    ("explanation/reliability.md", "It is counted before it is taken, against `memory_limit`",
     errors.MemoryLimitError, lambda c: c.engine(memory_limit=1000)),
    ("how-to/plan.md", "a damaged, cut or changed file | `PlanError`", errors.PlanError, damaged_plan),
    ("how-to/compare.md", "CompareError names the first failing node", errors.CompareError,
     compared_with_another),
    ("reference/onnx-dialect.md", "without usable ranges (`CalibrationError`)", errors.CalibrationError,
     export_without_ranges),
    ("reference/onnx-dialect.md", "weights that do not fit in float16 (`ExportError`)", errors.ExportError,
     large_weight_in_a_file),
    ("reference/files.md", "What cannot be written is a `WriteError`", errors.WriteError, no_room),
    ("reference/files.md", "Folders, named pipes, devices and sockets are refused", errors.ScnError, a_pipe),
    ("reference/files.md", "more than 64 levels are refused", errors.ScnError, nested),
    ("reference/files.md", "A key that is there twice", errors.ScnError, a_key_twice),
    ("reference/environment.md", "One that this machine lacks is an error", errors.ArgumentError,
     missing_instruction_set),
    ("reference/environment.md", "A folder that cannot be read is an error", errors.LidarError, missing_data),
    ("explanation/architecture.md", "A missing package is an error that names the extra to install",
     errors.MissingPackageError, missing_package),
    ("how-to/lidar-input.md", "otherwise the error names the candidates, or why each failed",
     errors.LidarError, raw_points_of_no_format),
    ("how-to/lidar-input.md", "NaN and infinity are errors", errors.LidarError, nan_points),
    ("how-to/lidar-input.md", "A range must hold a whole number of voxels", errors.LidarError,
     lambda c: VoxelGrid((0, 0, 0, 100, 12, 5), (0.3, 1, 1))),
    ("how-to/lidar-input.md", "refuse those of another one (`GridError`)", errors.GridError, another_grid),
    ("how-to/capture-a-model.md", "`if` on values is refused", errors.CaptureError,
     lambda c: scn_fx.capture(Deciding().eval(), frame(0))),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("page", "promise", "error", "provoke"), PROMISES, ids=[p[1] for p in PROMISES])
def test_a_promise_holds(
    page: str,
    promise: str,
    error: type[errors.ScnError],
    provoke: Callable[[Case], object],
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    assert promise in re.sub(r"\s+", " ", text)
    with pytest.raises(error) as raised:
        provoke(Case(tmp_path, model, monkeypatch))
    assert raised.type is error or error is errors.ScnError


def test_every_class_of_errors_is_among_them() -> None:
    classes = {getattr(errors, name) for name in errors.__all__}
    raised = {cls for cls in classes if issubclass(cls, errors.ScnError)} - {errors.ScnError}
    assert raised <= {error for _, _, error, _ in PROMISES}
