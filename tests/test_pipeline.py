# SPDX-License-Identifier: Apache-2.0
"""The whole path with the full CenterPoint encoder: capture, calibration, export, engine.

Runs on the embedded synthetic frame, and on a real one when SCN_FX_DATA names the data folder. Everything
slow is computed once a frame; each test then judges one promise.
"""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from torch import fx, nn

import quant
import scn_fx
from scn_fx.graph import layers
from scn_fx.lidar import embedded_frame
from scn_fx.zoo import CenterPointEncoder, demo_model
from tests.capture.frames import relative
from tests.core.instruction_sets import SUPPORTED, instruction_set
from tests.oracle.compare import assert_same_bits, assert_within, cosine
from tests.oracle.dialect import Network, read_network
from tests.oracle.frames import Frame
from tests.oracle.network import Result, run_network

Array = npt.NDArray[np.generic]


@dataclass(frozen=True)
class Scan:
    """A full-size frame: features float16 [N, 5] and indices int32 [N, 4], and the zoo model made for it."""

    features: npt.NDArray[np.float16]
    indices: npt.NDArray[np.int32]
    model: CenterPointEncoder

    @property
    def tensors(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The same as torch tensors, features in float32."""
        return torch.from_numpy(self.features).float(), torch.from_numpy(self.indices)

    def run(self, path: Path, **options: Any) -> Array:
        """The dense map from a new engine."""
        dense = scn_fx.Engine(path, **options)(self.features, self.indices)
        assert isinstance(dense, np.ndarray)
        return dense


@pytest.fixture(scope="module")
def scan(frame: Frame) -> Scan:
    """The oracle's own synthetic frame is too small for this: the product's stands in for it."""
    made = embedded_frame() if frame.name == "synthetic" else frame
    features, indices = np.array(made.features, np.float16), np.array(made.indices, np.int32)
    assert len(indices) > 79_000
    model = demo_model(0, (torch.from_numpy(features).float(), torch.from_numpy(indices)))
    return Scan(features, indices, model)


def _capture(scan: Scan, model: CenterPointEncoder) -> fx.GraphModule:
    return scn_fx.capture(model, model.arguments(*scan.tensors), output=0)


def _export(scan: Scan, graph: fx.GraphModule, path: Path) -> Network:
    """Exports for two voxels: the file must take any number of them. Returns it as libspconv reads it."""
    view, options = scn_fx.onnx_view(graph), scn_fx.export_options(graph)
    torch.onnx.export(view, (scan.tensors[0][:2],), path, dynamo=True, **options)
    return read_network(path)


@dataclass(frozen=True)
class Int8:
    """A calibrated network: its file, its graph's dense map, and what the oracle makes of the file."""

    path: Path
    network: Network
    dense: Array
    expected: Result


@pytest.fixture(scope="module")
def int8(scan: Scan, tmp_path_factory: pytest.TempPathFactory) -> Int8:
    graph = _capture(scan, scan.model)
    quant.calibrate(graph, [scan.tensors], method="mse", progress=False)
    path = tmp_path_factory.mktemp("int8") / "scn.onnx"
    network = _export(scan, graph, path)
    with torch.no_grad():
        dense = graph(*scan.tensors).numpy()
    return Int8(path, network, dense, run_network(network, scan.features, scan.indices))


def test_the_file_is_the_dialect_in_the_default_precision(int8: Int8) -> None:
    """`read_network` has applied libspconv's rules already."""
    onnx.checker.check_model(str(int8.path), full_check=True)
    nodes = int8.network.nodes
    assert Counter(node.op_type for node in nodes) == {
        "SparseConvolution": 21, "Add": 8, "Relu": 8, "ScatterDense": 1, "Reshape": 1,
    }  # fmt: skip
    computing = [node for node in nodes if node.op_type in ("SparseConvolution", "Add")]
    assert [node.name for node in computing if node.precision != "int8"] == ["conv_input.0"]
    assert [node.name for node in computing if node.output_precision != "int8"] == ["extra_conv.0"]


def test_the_result_says_something(int8: Int8) -> None:
    dense = int8.expected.dense
    assert dense.shape == (1, 256, 180, 180) and dense.dtype == np.float16
    assert np.isfinite(dense).all() and not int8.expected.overflowed
    assert 0.01 < np.count_nonzero(dense) / dense.size < 0.5


def test_the_calibrated_graph_has_the_bits_of_the_oracle(int8: Int8) -> None:
    assert_same_bits(int8.dense, int8.expected.dense)


@pytest.mark.parametrize("threads", [1, 2])
def test_the_engine_has_the_bits_of_graph_and_oracle(scan: Scan, int8: Int8, threads: int) -> None:
    engine = scn_fx.Engine(int8.path, threads=threads)
    assert engine.threads == threads
    for run in range(3):
        dense = engine(scan.features, scan.indices)
        assert_same_bits(dense, int8.dense, f"run {run} against the graph")
        assert_same_bits(dense, int8.expected.dense, f"run {run} against the oracle")


@pytest.mark.parametrize("isa", SUPPORTED)
def test_every_instruction_set_gives_these_bits(scan: Scan, int8: Int8, isa: str) -> None:
    with instruction_set(isa):
        engine = scn_fx.Engine(int8.path, threads=2)
        assert engine.isa == isa
        assert_same_bits(engine(scan.features, scan.indices), int8.expected.dense, isa)


def test_order_of_sites_and_dtype_of_features_change_nothing(scan: Scan, int8: Int8) -> None:
    order = np.random.default_rng(0).permutation(len(scan.indices))
    features = scan.features[order].astype(np.float32)
    dense = scn_fx.Engine(int8.path)(features, scan.indices[order])
    assert_same_bits(dense, int8.expected.dense)


@dataclass(frozen=True)
class Float:
    """A float network whose file holds its model's weights without rounding, and what spconv makes of it."""

    graph: fx.GraphModule
    path: Path
    network: Network
    spconv: torch.Tensor


@pytest.fixture(scope="module")
def floats(scan: Scan, tmp_path_factory: pytest.TempPathFactory) -> Float:
    model = exactly_foldable(scan.model)
    graph = _capture(scan, model)
    path = tmp_path_factory.mktemp("float") / "scn.onnx"
    network = _export(scan, graph, path)
    with torch.no_grad():
        dense, _ = model(*model.arguments(*scan.tensors))
    return Float(graph, path, network, dense)


def exactly_foldable(model: CenterPointEncoder) -> CenterPointEncoder:
    """A copy without biases whose folded weights and biases are float16 numbers, but for float32's rounding.

    A file stores float16; of this model it loses nothing, so the engine can be held against spconv. BatchNorm
    scales by a power of two, shared between its gamma and its variance; weight and beta are what then gives
    float16 numbers. The convolutions hand their bias, which spconv's CPU build cannot add, to the mean.
    """
    model = copy.deepcopy(model)
    modules = list(model.modules())  # each convolution comes before its BatchNorm
    convolutions = [m for m in modules if hasattr(m, "indice_key")]
    norms = [m for m in modules if isinstance(m, nn.BatchNorm1d)]
    assert len(convolutions) == len(norms) == 21
    with torch.no_grad():
        for convolution, norm in zip(convolutions, norms, strict=True):
            deviation = (norm.running_var + norm.eps).sqrt()
            scale = (norm.weight / deviation).log2().round().exp2()
            deviation = deviation.log2().round().clamp(min=-4).exp2()
            if convolution.bias is not None:
                norm.running_mean -= convolution.bias
                convolution.bias = None
            bias = (norm.bias - norm.running_mean * scale).half().float()
            norm.bias.copy_(bias + norm.running_mean * scale)
            norm.weight.copy_(scale * deviation)
            norm.running_var.copy_(deviation**2 - norm.eps)
            column = scale.reshape(-1, 1, 1, 1, 1)
            convolution.weight.copy_((convolution.weight * column).half().float() / column)
    return model


def test_a_file_of_this_model_loses_nothing(floats: Float) -> None:
    """The premise of the comparison with spconv; and with BatchNorms that are not trivial."""
    stored = {node.name: node for node in floats.network.nodes}
    for layer in layers(floats.graph):
        if layer.kind == "convolution":
            node = stored[layer.name]
            for kept, found in ((node.weight, layer.weight), (node.bias, layer.bias)):
                assert kept is not None and found is not None
                exact = found.detach().double().numpy()
                assert_within(kept, exact, 1e-6 * np.abs(exact).max(), layer.name)
    assert not any({"precision", "input_dynamic_range"} & set(n.attributes) for n in floats.network.nodes)


def test_the_fp32_engine_is_spconv(scan: Scan, floats: Float) -> None:
    dense = scan.run(floats.path, precision="fp32")
    assert dense.dtype == np.float32
    assert 0.01 < np.count_nonzero(dense) / dense.size < 0.5
    assert relative(torch.from_numpy(dense), floats.spconv) <= 1e-5


def test_the_captured_graph_is_spconv(scan: Scan, floats: Float) -> None:
    with torch.no_grad():
        assert relative(floats.graph(*scan.tensors), floats.spconv) <= 1e-5


def test_every_fp16_node_is_within_the_bound_of_its_summation_order(scan: Scan, floats: Float) -> None:
    """Each node is judged on the engine's own inputs: differences of former nodes do not count twice."""
    engine = scn_fx.Engine(floats.path)
    traced = {node.name: node for node in engine.trace(scan.features, scan.indices)}
    given = {name: node.values for name, node in traced.items()}
    expected = run_network(floats.network, scan.features, scan.indices, given=given, bounds=True)
    assert traced.keys() == expected.nodes.keys()
    for name, want in expected.nodes.items():
        got = traced[name]
        if want.sites is not None:
            assert got.indices is not None
            np.testing.assert_array_equal(got.indices, want.sites, name)
        assert got.values.dtype == want.values.dtype == np.float16
        if want.bound is None:
            assert_same_bits(got.values, want.values, name)
        else:
            assert_within(got.values, want.values, want.bound, name)
    dense = engine(scan.features, scan.indices)
    assert_same_bits(dense, traced["dense.reshape"].values, "fused against traced")
    assert cosine(dense, floats.spconv.numpy()) >= 0.99999
