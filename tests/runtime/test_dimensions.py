# SPDX-License-Identifier: Apache-2.0
"""Networks of two dimensions and of one, from spconv to the engine: the same bits, and their own indices."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import spconv.pytorch as spconv
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import fx, nn

import quant
import scn_fx
from scn_fx import _core
from scn_fx.capture import capture
from scn_fx.errors import CalibrationError, CompareError, GridError, OnnxError, SiteError
from scn_fx.exporting import export_onnx
from scn_fx.graph import metadata
from scn_fx.lidar import NetworkGrid, VoxelGrid
from scn_fx.lidar.sites import SiteIndices
from scn_fx.onnx import write_metadata
from scn_fx.runtime import Engine, compare
from scn_fx.runtime.file_graph import file_graph
from tests.capture.frames import flat_frame, randomise
from tests.oracle.compare import assert_same_bits
from tests.oracle.geometry import align, in_space
from tests.oracle.network import run_network
from tests.oracle.random_networks import RandomNetwork, networks

GRIDS = {1: (90,), 2: (19, 23)}
CONVS = {
    1: (spconv.SubMConv1d, spconv.SparseConv1d, spconv.SparseInverseConv1d, spconv.SparseConvTranspose1d),
    2: (spconv.SubMConv2d, spconv.SparseConv2d, spconv.SparseInverseConv2d, spconv.SparseConvTranspose2d),
}
EXPORTERS = ("dynamo", "torchscript")


class Backbone(nn.Module):
    """A residual level, a strided one, and three ends: dense map, inverse and transposed convolution."""

    def __init__(self, ndim: int) -> None:
        super().__init__()
        subm, strided, inverse, transposed = CONVS[ndim]
        kernel, stride = (3, 5)[-ndim:], (2, 1)[-ndim:] if ndim == 2 else 2
        self.grid = GRIDS[ndim]
        self.first = spconv.SparseSequential(subm(4, 16, 3, bias=False), nn.BatchNorm1d(16), nn.ReLU())
        self.block = spconv.SparseSequential(subm(16, 16, 3), nn.BatchNorm1d(16))
        self.down = spconv.SparseSequential(
            strided(16, 24, kernel, stride, padding=1, indice_key="down"), nn.BatchNorm1d(24), nn.ReLU()
        )
        self.dilated = subm(24, 24, 3, dilation=2)
        self.back = inverse(24, 8, kernel, indice_key="down")
        self.up = transposed(24, 8, 2, 2)

    def forward(self, features: torch.Tensor, coors: torch.Tensor, batch_size: int) -> Any:
        x = self.first(spconv.SparseConvTensor(features, coors.int(), list(self.grid), batch_size))
        y = self.block(x)
        y = y.replace_feature(torch.relu(y.features + x.features))
        z = self.dilated(self.down(y))
        return z.dense(), self.back(z), self.up(z), x


def frames(ndim: int, count: int = 2) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [flat_frame(4, GRIDS[ndim], 150 + 20 * seed, batch=2, seed=seed) for seed in range(count)]


_graphs: dict[tuple[int, int], fx.GraphModule] = {}


def calibrated(ndim: int, output: int) -> fx.GraphModule:
    """A calibrated graph; made once, so not to be changed."""
    if (ndim, output) not in _graphs:
        torch.manual_seed(ndim)
        model = randomise(Backbone(ndim))
        graph = capture(model, (*frames(ndim)[0], 2), output=output)
        quant.calibrate(graph, frames(ndim), method="max")
        _graphs[ndim, output] = graph
    return _graphs[ndim, output]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Path of the file of a graph, written when first asked for."""
    folder = tmp_path_factory.mktemp("flat")

    def path_of(ndim: int, output: int, exporter: str = "dynamo") -> Path:
        path = folder / f"{ndim}_{output}_{exporter}.onnx"
        if not path.exists():
            export_onnx(calibrated(ndim, output), path, exporter)
        return path

    return path_of


def pair(result: Any) -> tuple[np.ndarray, np.ndarray | None]:
    values, sites = result if isinstance(result, tuple) else (result, None)
    return np.asarray(values), None if sites is None else np.asarray(sites)


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("output", [0, 1, 2])
@pytest.mark.parametrize("ndim", [1, 2])
def test_int8_has_one_result(files: Callable[..., Path], ndim: int, output: int, exporter: str) -> None:
    graph, path = calibrated(ndim, output), files(ndim, output, exporter)
    engine = Engine(path)
    assert engine.ndim == engine.network_grid.ndim == ndim
    assert any(node.get("precision") == "int8" for node in engine.describe()["steps"])
    for features, indices in [*frames(ndim), flat_frame(4, GRIDS[ndim], 0)]:
        half, rows = features.half().numpy(), indices.numpy()
        expected = run_network(path, half, rows, 2).outputs[0]
        values, sites = pair(engine(half, rows))
        of_graph, at = pair(graph(features.half().float(), indices))
        if expected.sites is None:
            assert values.shape == (2, 24, *engine_shape(ndim))
            assert_same_bits(values, expected.values, "engine")
            assert_same_bits(of_graph, expected.values, "graph")
            continue
        assert sites is not None and at is not None
        assert sites.dtype == np.int32
        assert sites.shape == (len(values), ndim + 1) == at.shape
        assert_same_bits(values[align(expected.sites, sites)], expected.values, "engine")
        assert_same_bits(of_graph[align(expected.sites, at)], expected.values, "graph")
    compare(graph, engine, frames(ndim)).check()


def engine_shape(ndim: int) -> tuple[int, ...]:
    return {1: (44,), 2: (10, 21)}[ndim]


def test_both_exporters_write_the_same_nodes_and_the_metadata_say_the_dimensions(
    files: Callable[..., Path],
) -> None:
    one, other = (_core.read_onnx(str(files(2, 0, exporter))) for exporter in EXPORTERS)
    assert [n["attributes"] for n in one["nodes"]] == [n["attributes"] for n in other["nodes"]]
    assert [n["name"] for n in one["nodes"]] == [n["name"] for n in other["nodes"]]
    assert one["metadata"]["scn_fx.ndim"] == other["metadata"]["scn_fx.ndim"] == "2"
    convolution = one["nodes"][0]["attributes"]
    assert convolution["ndim"] == 3
    assert convolution["kernel_size"] == [1, 3, 3]
    assert convolution["input_spatial_shape"] == [1, *GRIDS[2]]
    assert [n["op_type"] for n in one["nodes"]][-2:] == ["ScatterDense", "Reshape"]
    assert one["nodes"][-2]["attributes"]["output_shape"] == [2, 24, 1, 10, 21]
    assert one["nodes"][-1]["attributes"]["dims"] == [2, 24, 10, 21]


def test_a_network_of_three_dimensions_says_nothing_new(tmp_path: Path) -> None:
    model = spconv.SparseSequential(spconv.SubMConv3d(4, 4, 3, bias=False)).eval()
    features, indices = flat_frame(4, (4, 5, 6), 40)
    graph = capture(model, (spconv.SparseConvTensor(features, indices, [4, 5, 6], 1),))
    export_onnx(graph, tmp_path / "scn.onnx")
    assert "scn_fx.ndim" not in _core.read_onnx(str(tmp_path / "scn.onnx"))["metadata"]
    engine = Engine(tmp_path / "scn.onnx")
    assert (engine.ndim, metadata(graph)["ndim"]) == (3, 3)
    with pytest.raises(
        SiteError, match=r"\[N, 4\].*got int32 \[\d+, 3\]\. Those are indices of a network of 2"
    ):
        engine(features, indices[:, 1:])


@given(networks(exact=True, ndim=2), networks(exact=True, ndim=1))
@settings(max_examples=30)
def test_random_networks_have_the_bits_of_the_oracle(two: RandomNetwork, one: RandomNetwork) -> None:
    for network in (one, two):
        arguments = network.features, network.sites, network.batch_size
        expected = run_network(network.onnx, *arguments).outputs
        results = Engine(network.onnx)(*arguments)
        results = [results] if len(expected) == 1 else list(results)
        for got, want in zip(results, expected, strict=True):
            values, sites = pair(got)
            if want.sites is not None:
                assert sites is not None
                values = values[align(want.sites, sites)]
            assert_same_bits(values, want.values, repr(network))


@given(networks(exact=True, ndim=2, max_sites=60))
@settings(max_examples=20)
def test_a_network_on_a_plane_is_one_in_a_space_of_one_layer(network: RandomNetwork) -> None:
    import onnx

    model = onnx.load_model_from_string(network.onnx)
    del model.metadata_props[:]
    arguments = network.features, network.sites, network.batch_size
    plane, space = Engine(network.onnx), Engine(model.SerializeToString())
    assert space.ndim == 3
    traced = space.trace(network.features, in_space(network.sites), network.batch_size)
    for got, want in zip(plane.trace(*arguments), traced, strict=True):
        assert_same_bits(got.values, want.values, got.name)
        if want.indices is not None:
            assert np.array_equal(in_space(got.indices), want.indices)


@pytest.mark.parametrize("kind", ["numpy", "torch", "mixed"])
def test_results_are_arrays_of_the_kind_of_the_frame(files: Callable[..., Path], kind: str) -> None:
    engine = Engine(files(2, 1))
    features, indices = frames(2)[0]
    want, at = engine(features.numpy(), indices.numpy())
    rows = indices if kind == "torch" else indices.numpy()
    values, sites = engine(features.numpy() if kind == "numpy" else features, rows)
    assert isinstance(sites, np.ndarray if kind == "numpy" else torch.Tensor)
    assert np.array_equal(np.asarray(sites), at)
    assert np.array_equal(np.asarray(values), want)
    assert np.array_equal(at, indices.numpy())  # sites of the input keep the caller's order
    # in any order of bytes and with any strides
    swapped = engine(features.numpy(), np.asfortranarray(indices.numpy()).astype(">i4"))
    assert np.array_equal(swapped[1], at)


def test_profile_and_trace_take_the_same_indices(files: Callable[..., Path]) -> None:
    engine = Engine(files(2, 0))
    features, indices = frames(2)[0]
    assert {stage.kind for stage in engine.profile(features, indices)} >= {"subm_map", "convolution"}
    nodes = engine.trace(features, indices)
    assert {node.indices.shape[1] for node in nodes if node.indices is not None} == {3}
    assert nodes[-1].values.shape == (2, 24, 10, 21)


def test_another_batch_size_than_the_exported_one(files: Callable[..., Path]) -> None:
    features, indices = flat_frame(4, GRIDS[2], 80, batch=1, seed=5)
    engine = Engine(files(2, 0))
    both = engine(features, indices, 2)
    assert torch.equal(engine(features, indices, 1), both[:1])


WRONG = {
    "three dimensions": (
        lambda i: torch.cat([i[:, :1] * 0, i], 1),
        r"\[N, 3\] \(batch, y, x\).*\[:, \[0, 2, 3\]\]",
    ),
    "one dimension": (lambda i: i[:, :2], r"\[N, 3\] \(batch, y, x\).*a network of 1 dimension"),
    "no batch": (lambda i: i[:, 1:], r"\[N, 3\] \(batch, y, x\)"),
    "five columns": (lambda i: torch.cat([i, i[:, :2]], 1), r"\[N, 3\] \(batch, y, x\)"),
    "one axis": (lambda i: i[:, 0], r"\[N, 3\] \(batch, y, x\)"),
}


@pytest.mark.parametrize("case", WRONG)
def test_indices_of_another_width_are_refused_everywhere(files: Callable[..., Path], case: str) -> None:
    change, message = WRONG[case]
    features, indices = frames(2)[0]
    wrong = change(indices)
    engine, graph = Engine(files(2, 0)), calibrated(2, 0)
    for call in (engine, engine.trace, engine.profile):
        for array in (wrong, wrong.numpy()):
            with pytest.raises(SiteError, match=message):
                call(features, array)
    with pytest.raises(CalibrationError, match=message):
        quant.calibrate(graph, [(features, wrong)], method="max")
    with pytest.raises(SiteError, match=message):
        compare(graph, engine, [(features, wrong)])


def test_indices_of_another_dtype_are_refused(files: Callable[..., Path]) -> None:
    features, indices = frames(2)[0]
    for array in (indices.long(), indices.long().numpy()):
        with pytest.raises(SiteError, match=r"int32 of shape \[N, 3\] \(batch, y, x\), got int64"):
            Engine(files(2, 0))(features, array)


def test_sites_off_the_grid_and_duplicates_are_refused(files: Callable[..., Path]) -> None:
    features, indices = frames(2)[0]
    engine = Engine(files(2, 0))
    for row, message in ((torch.tensor([0, 19, 0]), "grid"), (indices[1], "twice|duplicate|more than once")):
        wrong = indices.clone()
        wrong[0] = row
        with pytest.raises(SiteError, match=message):
            engine(features, wrong)


def test_a_file_without_the_metadata_is_one_of_three_dimensions(tmp_path: Path) -> None:
    """torch's TorchScript exporter has no place for metadata: nothing is lost in silence."""
    graph, path = calibrated(2, 0), tmp_path / "scn.onnx"
    features, indices = frames(2)[0]
    options = scn_fx.export_options(graph, exporter="torchscript")
    torch.onnx.export(scn_fx.onnx_view(graph), (features,), path, dynamo=False, **options)
    engine = Engine(path)
    assert engine.ndim == 3
    with pytest.raises(SiteError, match=r"\[N, 4\]"):
        engine(features, indices)
    with pytest.raises(CompareError, match="write_metadata"):
        compare(graph, engine, [(features, indices)])
    lifted = engine(features, torch.from_numpy(in_space(indices.numpy())))
    write_metadata(path, graph)
    assert torch.equal(Engine(path)(features, indices), lifted)


@pytest.mark.parametrize("said", ["0", "4", "two", ""])
def test_damaged_metadata_is_refused(files: Callable[..., Path], said: str) -> None:
    with pytest.raises(OnnxError, match=r"scn_fx\.ndim to be 1, 2 or 3"):
        Engine(_with_ndim(files(2, 0), said))


def test_metadata_that_the_grids_contradict_are_refused(files: Callable[..., Path]) -> None:
    with pytest.raises(OnnxError, match=r"says that it has 1 dimension\(s\).*\[1, 19, 23\]"):
        Engine(_with_ndim(files(2, 0), "1"))


def _with_ndim(path: Path, said: str) -> bytes:
    import onnx

    model = onnx.load(path)
    for entries in (model.metadata_props, model.graph.metadata_props):
        for entry in entries:
            if entry.key == "scn_fx.ndim":
                entry.value = said
    return bytes(model.SerializeToString())


@pytest.mark.parametrize("ndim", [1, 2])
def test_a_file_becomes_a_graph_of_its_dimensions(files: Callable[..., Path], ndim: int) -> None:
    path = files(ndim, 1)
    graph = file_graph(path).graph
    assert metadata(graph)["ndim"] == ndim
    # a file without a dense map does not say its batch size
    features, indices = flat_frame(4, GRIDS[ndim], 120)
    assert torch.equal(graph(features.half().float(), indices)[1], indices)
    single = Engine(path, precision="fp32")
    compare(graph, single, [(features, indices)]).check()


def test_a_grid_of_pillars_is_recorded_and_points_become_pillars(tmp_path: Path) -> None:
    grid = VoxelGrid((0.0, 0.0, -5.0, 11.5, 9.5, 3.0), (0.5, 0.5, 8.0), extra_z=0)
    torch.manual_seed(0)
    model = randomise(Backbone(2))
    graph = capture(model, (*frames(2)[0], 2), grid=grid)
    export_onnx(graph, tmp_path / "scn.onnx")
    engine = Engine(tmp_path / "scn.onnx")
    assert engine.grid == grid
    voxels = scn_fx.lidar.voxelize(np.random.default_rng(0).uniform(0, 9, (300, 4)).astype(np.float32), grid)
    with pytest.raises(GridError, match=r"expected indices \[N, 3\] \(batch, y, x\).*columns"):
        engine(voxels.features, voxels.indices)
    pillars = engine.network_grid.columns(voxels.indices)
    assert np.array_equal(pillars, np.asarray(voxels.indices)[:, [0, 2, 3]])
    assert engine(voxels.features, pillars, 1).shape == (1, 24, 10, 21)
    with pytest.raises(GridError, match="one cell along z, but the frame has some at z = 4"):
        engine.network_grid.columns(np.array([[0, 4, 1, 1]], np.int32))
    tall = VoxelGrid((0.0, 0.0, -5.0, 11.5, 9.5, 3.0), (0.5, 0.5, 4.0), extra_z=0)
    with pytest.raises(
        GridError, match=r"2 x 19 x 23 \(z, y, x\) voxels, the network takes sites in 1 x 19 x 23"
    ):
        capture(model, (*frames(2)[0], 2), grid=tall)


def test_columns_in_the_order_x_y() -> None:
    features, indices = frames(2)[0]
    graph = capture(randomise(Backbone(2)), (features, indices, 2), axes="xyz")
    grid = scn_fx.input_grid.network_grid(graph)
    assert (grid.spatial_shape, grid.axes) == ((1, GRIDS[2][1], GRIDS[2][0]), "xyz")
    voxels = np.array([[0, 0, 7, 9], [1, 0, 2, 4]], np.int32)
    assert grid.columns(voxels).tolist() == [[0, 9, 7], [1, 4, 2]]
    with pytest.raises(CalibrationError, match=r"\[N, 3\] \(batch, x, y\)"):
        quant.calibrate(graph, [(features, indices[:, :2])], method="max")


def test_indices_that_know_their_grid_are_not_taken_for_pillars() -> None:
    plain = np.zeros((1, 4), np.int32)
    grid = VoxelGrid((0.0, 0.0, 0.0, 4.0, 4.0, 1.0), (1.0, 1.0, 1.0), extra_z=0)
    network = NetworkGrid("the file", None, (1, 4, 4), "zyx", 2)
    with pytest.raises(GridError, match=r"\[:, \[0, 2, 3\]\]"):
        network.check(SiteIndices.of(plain, grid))


@given(st.integers(1, 2), st.integers(0, 2**32 - 1))
@settings(max_examples=15)
def test_the_graph_runs_frames_of_any_size(ndim: int, seed: int) -> None:
    graph = calibrated(ndim, 2)
    features, indices = flat_frame(4, GRIDS[ndim], seed % 97, batch=2, seed=seed)
    values, sites = graph(features, indices)
    assert sites.shape == (len(values), ndim + 1)
    assert not len(indices) or len(sites)
