# SPDX-License-Identifier: Apache-2.0
"""The voxel grid on its way: recorded at capture, kept by graph and file, and asked of every frame."""

from __future__ import annotations

import copy
import io
import json
import pickle
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import spconv.pytorch as sp
import torch
from torch import fx, nn

import quant
import scn_fx
from scn_fx import _core
from scn_fx.errors import CaptureError, ExportError, GridError, OnnxError
from scn_fx.graph import metadata
from scn_fx.input_grid import graph_grid, network_grid, set_grid
from scn_fx.lidar import VoxelGrid, synthetic_points, voxelize
from scn_fx.onnx import write_metadata

HALL = VoxelGrid((-8.0, -4.0, -1.0, 8.0, 4.0, 1.0), (0.2, 0.2, 0.25), max_points=5)
MOVED = VoxelGrid((-7.0, -4.0, -1.0, 9.0, 4.0, 1.0), (0.2, 0.2, 0.25))
"""The same shape elsewhere: nothing but the recorded range tells the two apart."""
WIDE = VoxelGrid((-4.0, -4.0, -1.0, 4.0, 4.0, 1.0), (0.1, 0.2, 0.25))
LONG = VoxelGrid((-8.0, -4.0, -1.0, 8.0, 12.0, 1.0), (0.2, 0.2, 0.25))


class Encoder(nn.Module):
    """Two convolutions and a dense map; index columns as `axes` says."""

    def __init__(self, axes: str = "zyx") -> None:
        super().__init__()
        torch.manual_seed(1)
        shape = HALL.spatial_shape
        self.shape = list(shape if axes == "zyx" else shape[::-1])
        self.a = sp.SubMConv3d(5, 8, 3, bias=False)
        self.b = sp.SparseConv3d(8, 8, 3, 2, 1, bias=False)

    def forward(self, features: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        return self.b(self.a(sp.SparseConvTensor(features, indices, self.shape, 1))).dense()


ARGUMENTS = (torch.zeros(4, 5), torch.arange(16).reshape(4, 4).int() % torch.tensor([1, 9, 9, 9]).int())


def captured(grid: VoxelGrid | None = HALL, axes: str = "zyx") -> fx.GraphModule:
    return scn_fx.capture(Encoder(axes).eval(), ARGUMENTS, grid=grid, axes=axes)


def exported(graph: fx.GraphModule, exporter: str = "dynamo") -> bytes:
    out = io.BytesIO()
    options = scn_fx.export_options(graph, exporter=exporter)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        view = scn_fx.onnx_view(graph)
        torch.onnx.export(view, ARGUMENTS[:1], out, dynamo=exporter == "dynamo", **options)
    return out.getvalue()


def frame(grid: VoxelGrid) -> Any:
    return voxelize(synthetic_points(sweeps=1)[::5], grid)


@pytest.fixture(scope="module")
def graph() -> fx.GraphModule:
    return captured()


@pytest.fixture(scope="module")
def file(graph: fx.GraphModule) -> bytes:
    return exported(graph)


def test_a_graph_remembers_its_grid(graph: fx.GraphModule) -> None:
    found = metadata(graph)["grid"]
    assert json.loads(json.dumps(found)) == found
    assert found["point_range"] == [-8, -4, -1, 8, 4, 1] and found["voxel_size"] == [0.2, 0.2, 0.25]
    for same in (graph, copy.deepcopy(graph), pickle.loads(pickle.dumps(graph))):
        assert graph_grid(same) == HALL and network_grid(same).spatial_shape == (9, 40, 80)
    assert metadata(captured(None))["grid"] is None is graph_grid(captured(None))


def test_a_grid_of_another_shape_is_refused_at_capture() -> None:
    with pytest.raises(GridError, match=r"grid has 9 x 80 x 80 .*takes sites in 9 x 40 x 80\. Pass"):
        captured(LONG)
    with pytest.raises(GridError, match=r"grid has 8 x 40 x 80 .*takes sites in 9 x 40 x 80.*extra_z"):
        captured(replace(HALL, extra_z=0))
    with pytest.raises(CaptureError, match=r"grid must be a scn_fx.lidar.VoxelGrid, got list"):
        captured([0, 0])  # type: ignore[arg-type]
    turned = captured(HALL, "xyz")
    assert network_grid(turned).spatial_shape == (9, 40, 80) and network_grid(turned).axes == "xyz"
    with pytest.raises(GridError, match=r"grid has 9 x 80 x 80 .*in 9 x 40 x 80 \(its own order is x, y, z"):
        captured(LONG, "xyz")


def test_a_grid_can_be_recorded_later() -> None:
    graph = captured(None)
    set_grid(graph, MOVED)
    assert graph_grid(graph) == MOVED
    with pytest.raises(GridError, match="takes sites in 9 x 40 x 80"):
        set_grid(graph, LONG)
    del graph.meta["scn_fx"]["grid"]  # as in graphs that were saved before there was one
    assert graph_grid(graph) is None


def test_the_engine_asks_every_frame(file: bytes) -> None:
    engine = scn_fx.Engine(file, threads=1)
    assert engine.grid == HALL
    voxels, other = frame(HALL), frame(MOVED)
    dense = engine(*voxels)
    assert np.array_equal(dense, engine(voxels.features, np.asarray(voxels.indices)))
    for use in (engine, engine.trace, engine.profile):
        with pytest.raises(
            GridError, match=r"The frame was voxelised in .*\(-7, -4, -1\).*takes .*\(-8, -4, -1"
        ):
            use(*other)
    engine(other.features, np.asarray(other.indices))  # bare arrays do not say their grid


def test_calibration_and_comparison_ask_every_frame(graph: fx.GraphModule, file: bytes) -> None:
    calibrated = copy.deepcopy(graph)
    quant.calibrate(calibrated, [frame(HALL), tuple(frame(HALL))], method="max", progress=False)
    for other in (frame(MOVED), tuple(frame(MOVED))):
        with pytest.raises(GridError, match=r"Frame 1 \(counted from 0\) was voxelised in .*the graph takes"):
            quant.calibrate(calibrated, [frame(HALL), other], method="max", progress=False)
        with pytest.raises(GridError, match=r"Frame 0 \(counted from 0\) was voxelised in .*the graph takes"):
            scn_fx.compare(graph, scn_fx.Engine(file), [other])
    assert scn_fx.compare(graph, scn_fx.Engine(file), [frame(HALL)]).ok


def test_without_a_recorded_grid_the_shape_decides() -> None:
    graph = captured(None)
    engine = scn_fx.Engine(exported(graph))
    assert engine.grid is None and engine.network_grid.spatial_shape == (9, 40, 80)
    engine(*frame(HALL)), engine(*frame(MOVED))
    for other in (LONG, replace(WIDE, voxel_size=(0.2, 0.2, 0.25))):
        with pytest.raises(GridError, match="takes sites in 9 x 40 x 80"):
            engine(*frame(other))
    with pytest.raises(GridError, match=r"the graph takes sites in 9 x 40 x 80"):
        quant.calibrate(graph, [frame(LONG)], method="max", progress=False)


def test_a_network_of_xyz_columns_refuses_zyx_indices() -> None:
    turned = captured(HALL, "xyz")
    engine = scn_fx.Engine(exported(turned))
    assert engine.network_grid.axes == "xyz" and engine.network_grid.spatial_shape == (9, 40, 80)
    features, indices = frame(HALL)
    with pytest.raises(GridError, match=r"expected indices \(batch, x, y, z\)"):
        engine(features, indices)
    got = engine(features, engine.network_grid.columns(indices))
    turned_indices = torch.from_numpy(np.ascontiguousarray(indices[:, [0, 3, 2, 1]]))
    with torch.no_grad():
        want = Encoder("xyz").eval()(torch.from_numpy(features).float(), turned_indices)
    assert np.allclose(got, want.numpy(), atol=0.05)


def test_metadata_for_files_of_the_torchscript_exporter(graph: fx.GraphModule, tmp_path: Path) -> None:
    data = exported(graph, "torchscript")
    path = tmp_path / "scn.onnx"
    path.write_bytes(data)
    assert scn_fx.Engine(path).grid is None
    write_metadata(path, graph)
    assert scn_fx.Engine(path).grid == HALL
    after = path.read_bytes()
    assert after.startswith(data), "nothing else changes"
    write_metadata(path, graph)
    assert path.read_bytes() == after and [p.name for p in tmp_path.iterdir()] == ["scn.onnx"]
    model = onnx.load(path)
    assert {entry.key: entry.value for entry in model.metadata_props}["scn_fx.axes"] == "zyx"
    assert len(model.graph.node) == len(onnx.load_from_string(data).graph.node)
    with pytest.raises(
        ExportError, match=r"says scn_fx.grid.point_range = '-8.0,.* already, this graph '-7.0,"
    ):
        write_metadata(path, captured(MOVED))
    (tmp_path / "none.onnx").write_bytes(b"")
    with pytest.raises(OnnxError):
        write_metadata(tmp_path / "none.onnx", graph)


def test_both_exporters_write_the_same_entries(graph: fx.GraphModule, file: bytes, tmp_path: Path) -> None:
    path = tmp_path / "scn.onnx"
    path.write_bytes(exported(graph, "torchscript"))
    write_metadata(path, graph)
    entries = _core.read_onnx(str(path))["metadata"]
    assert entries == _core.read_onnx(file)["metadata"]
    assert entries["scn_fx.grid.voxel_size"] == "0.2,0.2,0.25" and entries["scn_fx.grid.max_points"] == "5"


def test_damaged_entries_are_named(file: bytes) -> None:
    model = onnx.load_from_string(file)
    for entry in model.graph.metadata_props:
        if entry.key == "scn_fx.grid.voxel_size":
            entry.value = "0.2,0.2"
    with pytest.raises(
        OnnxError, match=r"^The file has damaged metadata about its voxel grid: .*three voxel"
    ):
        _ = scn_fx.Engine(model.SerializeToString()).grid
