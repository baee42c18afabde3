# SPDX-License-Identifier: Apache-2.0
"""What both exporters write is the libspconv dialect, node by node the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

import scn_fx
from scn_fx.exporting import export_onnx
from scn_fx.files.onnx_models import read_model as read_file_model
from scn_fx.graph import layers
from tests.onnx import graphs
from tests.onnx.conftest import EXPORTERS, GRAPHS, Exports, write
from tests.onnx.reader import read_model
from tests.quant.graphs import GraphBuilder, residual

OP_TYPES = {"SparseConvolution", "Add", "Relu", "ScatterDense", "Reshape", "Transpose"}
CONVOLUTION = {
    "activation": "s", "kernel_size": "ints", "stride": "ints", "padding": "ints", "dilation": "ints", "subm":
    "i", "inverse": "i", "output_bound": "i", "rulebook": "s", "ndim": "i", "transposed": "i", "groups": "i",
    "in_channels": "i", "out_channels": "i", "input_spatial_shape": "ints", "output_spatial_shape": "ints",
    "output_padding": "ints", "input_shape": "ints", "output_shape": "ints",
}  # fmt: skip
CALIBRATED = {
    "precision": "s", "output_precision": "s", "input_dynamic_range": "f", "weight_dynamic_ranges": "floats",
}  # fmt: skip

both = pytest.mark.parametrize("exporter", EXPORTERS)
every = pytest.mark.parametrize("name", list(GRAPHS))


@every
@both
def test_file_keeps_the_rules_of_the_dialect(exports: Exports, name: str, exporter: str) -> None:
    model = exports.read(name, exporter)
    assert {node.op_type for node in model.nodes} <= OP_TYPES
    assert {node.domain for node in model.proto.graph.node} == {"scn_fx"}
    assert {entry.domain: entry.version for entry in model.proto.opset_import} == {"": 18, "scn_fx": 1}
    assert not model.proto.functions
    onnx.checker.check_model(model.proto, full_check=True)


@every
def test_both_exporters_write_the_same_nodes(exports: Exports, name: str) -> None:
    dynamo, torchscript = (exports.read(name, exporter) for exporter in EXPORTERS)
    for one, other in zip(dynamo.nodes, torchscript.nodes, strict=True):
        assert one == other
    assert dynamo.outputs == torchscript.outputs
    assert [i.name for i in dynamo.proto.graph.initializer] == [
        i.name for i in torchscript.proto.graph.initializer
    ]


@every
@both
def test_names_and_wiring_are_those_of_the_graph(exports: Exports, name: str, exporter: str) -> None:
    expected = []
    for layer in layers(GRAPHS[name]()):
        expected.append(layer.name)
        if layer.kind == "add" and layer.activation == "ReLU":
            expected.append(layer.activation_name)
    assert [node.name for node in exports.read(name, exporter).nodes] == expected


@every
@both
def test_edges_are_called_as_the_nodes_that_make_them(exports: Exports, name: str, exporter: str) -> None:
    graph = exports.read(name, exporter).proto.graph
    results = {value.name for value in graph.output}
    for node in graph.node:
        assert list(node.output) == [f"{node.name}.out"] or set(node.output) <= results


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_nodes_may_have_the_names_of_inputs_and_numbers(tmp_path: Path, exporter: str) -> None:
    """nn.Sequential as a model calls its layers so."""
    build = GraphBuilder()
    x = build.features
    for name, width in (("features", 3), ("0", 4), ("1", 4), ("0.1", 4), ("output", 4), ("add_default", 4)):
        x = build.conv(x, name, (width, 4))
    export_onnx(build.finish(build.dense(x)), tmp_path / "a.onnx", exporter)
    model = onnx.load(tmp_path / "a.onnx")
    onnx.checker.check_model(model, full_check=True)
    names = ["features", "0", "1", "0.1", "output", "add_default"]
    assert [node.output[0] for node in model.graph.node] == [*(f"{n}.out" for n in names), "output"]


@both
def test_wiring_of_a_residual_block(exports: Exports, exporter: str) -> None:
    model = exports.read("small", exporter)
    assert model.node("conv_input.0").sources == ("",)
    assert model.node("conv1.0.conv1").sources == ("conv_input.0",)
    assert model.node("conv1.0.add").sources == ("conv1.0.conv2", "conv_input.0")
    assert model.node("conv1.0.relu").sources == ("conv1.0.add",)
    assert model.node("conv1.twice").sources == ("conv1.0.relu", "conv1.0.relu")
    assert model.node("dense.reshape").sources == ("dense.transpose",)
    assert model.outputs == ("dense.reshape",)


@both
def test_attributes_of_a_float_graph(exports: Exports, exporter: str) -> None:
    model = exports.read("small", exporter)
    found = model.node("conv2.0").attributes
    assert {key: kind for key, (kind, _) in found.items()} == CONVOLUTION
    assert {key: value for key, (_, value) in found.items()} == {
        "activation": "ReLU", "kernel_size": [3] * 3, "stride": [2] * 3, "padding": [1] * 3, "dilation": [1] *
        3, "subm": 0, "inverse": 0, "output_bound": 160000, "rulebook": "conv2.0", "ndim": 3, "transposed": 0,
        "groups": 1, "in_channels": 16, "out_channels": 32, "input_spatial_shape": [5, 8, 8],
        "output_spatial_shape": [3, 4, 4], "output_padding": [0] * 3, "input_shape": [-1, 16], "output_shape":
        [-1, 32],
    }  # fmt: skip
    assert model.node("conv_input.0").attributes["rulebook"] == ("s", "res0")
    assert model.node("conv1.0.conv2").attributes["activation"] == ("s", "None")
    assert model.node("conv1.0.conv2").attributes["subm"] == ("i", 1)
    assert model.node("conv1.0.add").attributes == {}
    assert model.node("conv2.relu").attributes == {}
    assert model.node("dense").attributes == {
        "format": ("s", "zyx"),
        "input_spatial_shape": ("ints", [3, 4, 4]),
        "output_shape": ("ints", [1, 32, 3, 4, 4]),
    }
    assert model.node("dense.transpose").attributes == {"dims": ("ints", [0, 1, 2, 4, 3])}
    assert model.node("dense.reshape").attributes == {"dims": ("ints", [1, 96, 4, 4])}


@both
def test_attributes_of_a_calibrated_graph(exports: Exports, exporter: str) -> None:
    model = exports.read("small calibrated", exporter)
    graph = GRAPHS["small calibrated"]()
    for name in ("conv_input.0", "conv1.0.conv1", "conv2.0"):
        found, layer = model.node(name).attributes, graphs.named(graph, name)
        assert {key: kind for key, (kind, _) in found.items()} == CONVOLUTION | CALIBRATED
        assert found["precision"] == ("s", layer.precision)
        assert found["output_precision"] == ("s", layer.output_precision)
        assert found["input_dynamic_range"] == ("f", layer.input_dynamic_range)
        assert found["weight_dynamic_ranges"] == ("floats", layer.weight_dynamic_ranges)
    assert model.node("conv1.0.add").attributes == {
        "precision": ("s", "int8"),
        "output_precision": ("s", "int8"),
        "input0_dynamic_range": ("f", 2.25),
        "input1_dynamic_range": ("f", float(np.float32(0.1))),
    }


@both
def test_an_inverse_convolution_names_its_partners_rulebook(exports: Exports, exporter: str) -> None:
    model = exports.read("sparse", exporter)
    attributes = model.node("up").attributes
    assert (attributes["inverse"], attributes["rulebook"]) == (("i", 1), ("s", "down"))
    assert attributes["output_spatial_shape"] == ("ints", [5, 8, 8])
    assert model.outputs == ("up",), "a sparse output is represented by its features"
    assert len(model.proto.graph.output) == 1


@every
@both
def test_initialisers_are_the_rounded_weights(exports: Exports, name: str, exporter: str) -> None:
    model = exports.read(name, exporter)
    for layer in layers(GRAPHS[name]()):
        if layer.kind != "convolution":
            continue
        (shape, weight), (width, bias) = model.node(layer.name).tensors
        assert shape == tuple(layer.weight.shape)
        assert weight == layer.weight.half().numpy().tobytes()
        assert width == shape[:1]
        expected = torch.zeros(shape[0]) if layer.bias is None else layer.bias
        assert bias == expected.half().numpy().tobytes()


@both
def test_any_number_of_voxels(exports: Exports, exporter: str) -> None:
    model = exports.read("small", exporter).proto.graph
    (given,) = model.input
    assert given.name == "features"
    count, channels = given.type.tensor_type.shape.dim
    assert count.dim_param == "voxels"
    assert channels.dim_value == 5
    results = {name for node in model.node for name in node.output}
    for value in model.value_info:
        if value.name in results:
            first, second, *spatial = value.type.tensor_type.shape.dim
            assert second.dim_value > 0, value.name
            assert first.dim_value == 1 if spatial else first.dim_param, value.name
    (output,) = model.output
    assert output.name == "output"
    assert [dim.dim_value for dim in output.type.tensor_type.shape.dim] == [1, 96, 4, 4]


@both
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_example_features_of_either_dtype_give_the_same_nodes(tmp_path, exports, exporter, dtype) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "model.onnx"
    write(GRAPHS["small"](), path, exporter, torch.rand(7, 5).to(dtype))
    assert read_model(path).nodes == exports.read("small", exporter).nodes


@both
def test_export_is_deterministic(tmp_path, exports, exporter) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "model.onnx"
    write(GRAPHS["small calibrated"](), path, exporter)
    assert path.read_bytes() == exports.path("small calibrated", exporter).read_bytes()


@both
@pytest.mark.parametrize("name", ["encoder", "encoder calibrated"])
def test_export_of_the_encoder_is_quick_and_small(exports: Exports, name: str, exporter: str) -> None:
    model = exports.read(name, exporter)
    assert sum(node.op_type == "SparseConvolution" for node in model.nodes) == 21
    assert exports.seconds[name, exporter] < 20
    weights = sum(len(data) for node in model.nodes for _, data in node.tensors)
    assert exports.path(name, exporter).stat().st_size < weights + 100_000


def test_files_say_what_they_are_of_and_how_they_are_run(tmp_path: Path) -> None:
    graph = residual()
    graph.meta["scn_fx"] |= {"model": "my.models:encoder", "checkpoint": {"file": "a.pth", "sha256": "ab12"}}
    for exporter in EXPORTERS:
        export_onnx(graph, tmp_path / "a.onnx", exporter)
        model = onnx.load(tmp_path / "a.onnx")
        assert "indices, int32 [voxels" in (model.doc_string or model.graph.doc_string)
        found = read_file_model(tmp_path / "a.onnx")["metadata"]
        assert found["scn_fx.model"] == "my.models:encoder"
        assert (found["scn_fx.checkpoint"], found["scn_fx.checkpoint.sha256"]) == ("a.pth", "ab12")
        assert scn_fx.Engine(tmp_path / "a.onnx").ndim == 3


def test_metadata_of_the_dynamo_exporter(exports: Exports) -> None:
    def metadata(name: str) -> dict[str, str]:
        return {entry.key: entry.value for entry in exports.read(name, "dynamo").proto.graph.metadata_props}

    found = metadata("small calibrated")
    assert found == {
        "scn_fx.version": scn_fx.__version__,
        "scn_fx.dialect": "libspconv",
        "scn_fx.axes": "zyx",
        "scn_fx.calibration.method": "mse",
        "scn_fx.calibration.frames": "12",
    }
    assert not any("calibration" in key for key in metadata("small"))
    assert not any(node.metadata_props for node in exports.read("small", "dynamo").proto.graph.node)
