# SPDX-License-Identifier: Apache-2.0
"""The view and the options: what they accept, what they refuse, and that they leave the graph alone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import fx

from scn_fx.errors import CalibrationError, ExportError, MissingPackageError
from scn_fx.graph import fingerprint
from scn_fx.onnx import export_options, onnx_view, translations
from scn_fx.onnx.schemas import register_schemas
from tests.onnx.conftest import EXPORTERS, write
from tests.onnx.graphs import GraphBuilder, calibrate, named, small_graph, sparse_graph
from tests.onnx.reader import read_model

both = pytest.mark.parametrize("exporter", EXPORTERS)


def test_view_runs_on_features_alone() -> None:
    view = onnx_view(small_graph())
    assert not view.training
    assert view(torch.rand(20, 5)).shape == (1, 96, 4, 4)
    assert view(torch.rand(30, 5)).shape == (1, 96, 4, 4)
    assert {p.dtype for p in view.parameters()} == {torch.float16}
    assert "conv1.0.conv1.weight" in dict(view.named_parameters())


def test_view_of_a_sparse_output_returns_the_features() -> None:
    assert onnx_view(sparse_graph())(torch.rand(20, 5)).shape == (20, 8)


def test_graph_is_left_alone() -> None:
    graph = small_graph()
    before, code = fingerprint(graph), graph.code
    onnx_view(graph)
    assert fingerprint(graph) == before
    assert graph.code == code
    assert {p.dtype for p in graph.parameters()} == {torch.float32}


def test_two_outputs() -> None:
    builder = GraphBuilder((5, 8, 8))
    first = builder.subm(builder.features, "a", (5, 4))
    second = builder.subm(first, "b", (4, 4))
    graph = builder.finish((first, second))
    assert export_options(graph)["output_names"] == ["output0", "output1"]


@both
def test_a_relu_that_serves_several_additions_gets_a_name_for_each(tmp_path: Path, exporter: str) -> None:
    builder = GraphBuilder((5, 8, 8))
    x = builder.subm(builder.features, "a", (5, 4))
    for name in ("first", "second"):
        x = builder.call("add", x, x, name=name, activation="ReLU", activation_name="relu")
    path = tmp_path / "model.onnx"
    write(builder.finish(x), path, exporter)
    assert [node.name for node in read_model(path).nodes] == ["a", "first", "relu", "second", "relu_1"]


@both
def test_equal_weights_share_an_initialiser(tmp_path: Path, exporter: str) -> None:
    builder = GraphBuilder((5, 8, 8))
    x = builder.subm(builder.features, "a", (5, 5), bias=False)
    y = builder.subm(x, "b", (5, 5))
    y.args = (y.args[0], x.args[1], *y.args[2:])
    z = builder.subm(y, "c", (5, 5), bias=False)
    path = tmp_path / "model.onnx"
    write(builder.finish(z), path, exporter)
    model = read_model(path)
    a, b, c = model.nodes
    assert a.tensors[0] == b.tensors[0] != c.tensors[0]
    assert a.tensors[1] == c.tensors[1] != b.tensors[1]
    names = {initializer.name for initializer in model.proto.graph.initializer}
    assert names == {"a.weight", "a.bias", "b.bias", "c.weight"}


def _without_input_range(graph: fx.GraphModule) -> None:
    named(graph, "conv1.0.conv2").set(input_dynamic_range=None)


def _without_weight_ranges(graph: fx.GraphModule) -> None:
    named(graph, "conv1.0.conv2").set(weight_dynamic_ranges=None)


def _with_zero_range(graph: fx.GraphModule) -> None:
    named(graph, "conv1.0.conv2").set(input_dynamic_range=0.0)


def _add_without_range(graph: fx.GraphModule) -> None:
    named(graph, "conv1.0.add").set(input1_dynamic_range=None)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            _without_input_range,
            r"'conv1\.0\.conv2' computes in int8 but has no input_dynamic_range.*quant\.calibrate",
        ),
        (_without_weight_ranges, r"'conv1\.0\.conv2'.*has no weight_dynamic_ranges"),
        (_with_zero_range, r"'conv1\.0\.conv2': input_dynamic_range must be a number from .*, got 0\.0"),
        (_add_without_range, r"'conv1\.0\.add' computes in int8 but has no input1_dynamic_range"),
    ],
)
@pytest.mark.parametrize("step", [onnx_view, export_options])
def test_uncalibrated_node(spoil: Callable[[Any], None], message: str, step: Callable[[Any], Any]) -> None:
    graph = calibrate(small_graph())
    spoil(graph)
    with pytest.raises(CalibrationError, match=message):
        step(graph)


@pytest.mark.parametrize(
    ("attribute", "value", "message"),
    [
        ("conv1_0_conv1_weight", 7e4, r"'conv1\.0\.conv1': weight must fit in float16.*got 70000"),
        ("conv1_0_conv1_bias", -1e6, r"'conv1\.0\.conv1': bias must fit in float16.*got 1e\+06"),
        ("conv1_0_conv1_weight", float("nan"), r"'conv1\.0\.conv1': weight must be finite"),
    ],
)
def test_weights_beyond_float16(attribute: str, value: float, message: str) -> None:
    graph = small_graph()
    getattr(graph, attribute).data.view(-1)[3] = value
    with pytest.raises(ExportError, match=message):
        onnx_view(graph)


def test_foreign_nodes_and_repeated_names() -> None:
    builder = GraphBuilder((5, 8, 8))
    x = builder.subm(builder.features, "a", (5, 4))
    with pytest.raises(ExportError, match=r"'tanh' calls .*tanh.* only scn_fx operators"):
        onnx_view(builder.finish(builder.graph.call_function(torch.tanh, (x,))))
    graph = small_graph()
    named(graph, "conv2.0").set(name="conv1.0.conv1")
    with pytest.raises(ExportError, match=r"several nodes named conv1\.0\.conv1"):
        onnx_view(graph)
    empty = GraphBuilder((5, 8, 8))
    with pytest.raises(ExportError, match="without layers"):
        onnx_view(empty.finish(empty.features))


def test_a_missing_onnxscript_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "scn_fx.onnx.translations")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MissingPackageError, match=r"'onnxscript'.*scn-fx\[export\]"):
        export_options(small_graph())
    export_options(small_graph(), exporter="torchscript")


def test_unknown_exporter() -> None:
    with pytest.raises(ExportError, match="'dynamo' or 'torchscript', got 'onnxruntime'"):
        export_options(small_graph(), exporter="onnxruntime")


@both
@pytest.mark.parametrize("count", [0, 1])
def test_an_example_with_hardly_any_voxels_will_do(tmp_path: Path, exporter: str, count: int) -> None:
    path = tmp_path / "model.onnx"
    write(small_graph(), path, exporter, torch.rand(count, 5))
    assert read_model(path).proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "voxels"


def test_without_access_to_the_exporters_nodes_only_the_names_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = calibrate(small_graph())
    write(graph, tmp_path / "named.onnx", "dynamo")
    monkeypatch.setattr(translations, "_recorder_nodes", lambda: None)
    write(graph, tmp_path / "plain.onnx", "dynamo")
    named_nodes, plain_nodes = (read_model(tmp_path / f"{kind}.onnx").nodes for kind in ("named", "plain"))
    positions = [{"": -1} | {node.name: i for i, node in enumerate(n)} for n in (named_nodes, plain_nodes)]
    for one, other in zip(named_nodes, plain_nodes, strict=True):
        assert (one.op_type, one.attributes, one.tensors) == (other.op_type, other.attributes, other.tensors)
        assert [positions[0][s] for s in one.sources] == [positions[1][s] for s in other.sources]


def test_the_graph_itself_is_not_exported(tmp_path: Path) -> None:
    graph = small_graph().eval()
    options = {**export_options(graph), "input_names": None, "dynamic_shapes": None}
    with pytest.raises(Exception, match=r"'conv_input\.0'.*Export onnx_view\(graph\)"):
        torch.onnx.export(graph, (torch.rand(9, 5), torch.zeros(9, 4).int()), tmp_path / "x.onnx", **options)


@both
def test_example_of_the_wrong_width_names_the_layer(tmp_path: Path, exporter: str) -> None:
    with pytest.raises(Exception, match=r"'conv_input\.0': features must have 5 channels"):
        write(small_graph(), tmp_path / "model.onnx", exporter, torch.rand(20, 4))
    assert not (tmp_path / "model.onnx").exists()


def test_tracing_computes_nothing(tmp_path: Path) -> None:
    # Real arithmetic on the placeholder sites would overflow float16 here, and exceed the bound.
    graph = calibrate(small_graph())
    for name in ("conv_input.0", "conv2.0"):
        named(graph, name).kernel_map.set(output_bound=2)
    for parameter in graph.parameters():
        parameter.data.fill_(6e4)
    write(graph, tmp_path / "model.onnx", "torchscript", torch.full((50, 5), 6e4))


def test_schemas_check_the_attributes() -> None:
    register_schemas()
    register_schemas()
    node = onnx.helper.make_node("ScatterDense", ["x"], ["y"], domain="scn_fx", format="zyx")
    with pytest.raises(onnx.checker.ValidationError, match="output_shape"):
        onnx.checker.check_node(node, _context())


def _context() -> onnx.checker.C.CheckerContext:  # type: ignore[name-defined]
    context = onnx.checker.C.CheckerContext()
    context.ir_version = 10
    context.opset_imports = {"": 18, "scn_fx": 1}
    return context


@pytest.mark.parametrize("first", ["onnx.reference", "scn_fx.onnx.schemas"])
def test_schemas_leave_onnx_importable(first: str) -> None:
    # onnx.reference refuses to load once two domains have an Add, unless it was loaded before.
    register = "from scn_fx.onnx.schemas import register_schemas; register_schemas()"
    code = f"import {first}; {register}; import onnx.reference.ops"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
