# SPDX-License-Identifier: Apache-2.0
"""Graphs that are read from files, against the engine that runs these files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import assume, given, settings
from onnx import numpy_helper

import quant
from scn_fx.errors import OnnxError
from scn_fx.exporting import export_onnx
from scn_fx.graph import layers, metadata
from scn_fx.input_grid import graph_grid, set_grid
from scn_fx.lidar import VoxelGrid
from scn_fx.runtime import Engine, Limits, compare
from scn_fx.runtime.file_graph import file_graph
from tests.oracle import builder
from tests.oracle.random_networks import RandomNetwork, networks
from tests.quant.graphs import frame, residual

IDENTICAL = Limits(identical=True, allow_zero=True)


def assert_same(graph: torch.fx.GraphModule, data: bytes, frame: Any, **options: Any) -> None:
    """Every node and output has the engine's bits, in float32."""
    engine = Engine(data, precision="fp32", **options)
    compare(graph, engine, [frame], limits=IDENTICAL).check()


@given(networks(exact=False, max_sites=80))
@settings(max_examples=20)
def test_random_networks_compute_what_the_engine_computes(network: RandomNetwork) -> None:
    dense = any(node.op_type == "ScatterDense" for node in onnx.load_from_string(network.onnx).graph.node)
    assume(dense or network.batch_size == 1)  # a file without a dense map does not say its batch size
    graph = file_graph(network.onnx).graph
    assert all(layer.precision == "fp32" for layer in layers(graph) if layer.kind in ("convolution", "add"))
    said = {
        node.name: {a.name: a.i for a in node.attribute if a.name in ("subm", "inverse", "transposed")}
        for node in onnx.load_from_string(network.onnx).graph.node
    }
    for layer in layers(graph):
        if layer.kind == "convolution":
            assert {flag: int(getattr(layer.geometry, flag)) for flag in said[layer.name]} == said[layer.name]
    assert_same(graph, network.onnx, (network.features, network.sites))


def test_the_graph_of_an_export_is_the_graph_that_was_exported(tmp_path: Path) -> None:
    graph = residual()
    quant.calibrate(graph, [frame(0), frame(1)], method="max", progress=False)
    export_onnx(graph, tmp_path / "int8.onnx", "torchscript")
    found = file_graph(tmp_path / "int8.onnx").graph
    names = ("name", "activation", "activation_name", "input_dynamic_range", "input0_dynamic_range",
             "input1_dynamic_range", "weight_dynamic_ranges", "rulebook", "output_bound")  # fmt: skip
    pairs = list(zip(layers(graph), layers(found), strict=True))
    for own, read in pairs:
        for name in names:
            if name in own.node.kwargs:
                assert read.argument(name) == own.argument(name), (own.name, name)
        if own.kind == "convolution":
            assert own.geometry == read.geometry
            assert torch.equal(own.weight.half().float(), read.weight)
    for key in ("axes", "grid", "features", "indices"):
        assert metadata(found)[key] == metadata(graph)[key]
    quant.set_precision(found, "default")  # the ranges are there
    assert torch.equal(found(*frame(2)), graph(*frame(2)))
    copy = tmp_path / "again.onnx"
    export_onnx(found, copy, "torchscript")
    x, sites = (t.numpy() for t in frame(3))
    assert np.array_equal(Engine(copy)(x, sites), Engine(tmp_path / "int8.onnx")(x, sites))


def test_the_grid_of_a_file_is_the_graphs(tmp_path: Path) -> None:
    grid = VoxelGrid((0.0, 0.0, 0.0, 12.0, 12.0, 5.0), (1.0, 1.0, 1.0))
    graph = residual()
    set_grid(graph, grid)
    export_onnx(graph, tmp_path / "a.onnx", "torchscript")
    assert graph_grid(file_graph(tmp_path / "a.onnx").graph) == grid


RNG = np.random.default_rng(0)
SHAPE = (6, 12, 12)


def conv(name: str, x: str, y: str, channels: tuple[int, int], **options: Any) -> builder.Piece:
    weight = RNG.standard_normal((channels[1], 3, 3, 3, channels[0])) / 6
    return builder.convolution(
        name, x, y, weight, input_shape=SHAPE, output_shape=SHAPE, subm=True, padding=(1, 1, 1), **options
    )


def edited(data: bytes, **changes: Any) -> bytes:
    """A file whose nodes lack attributes ("drop"), or bear other names ("names")."""
    model = onnx.load_from_string(data)
    for node in model.graph.node:
        kept = [a for a in node.attribute if a.name not in changes.get("drop", ())]
        del node.attribute[:]
        node.attribute.extend(kept)
        node.name = changes.get("names", {}).get(node.name, node.name)
    return model.SerializeToString()


def plain_file() -> bytes:
    return builder.build_onnx(
        conv("a", "features", "av", (3, 4), activation="ReLU"),
        conv("b", "av", "bv", (4, 4)),
        builder.add("s", "bv", "av", "sv", op_type="QuantAdd"),
        builder.node("Relu", "r", ["sv"], "rv"),
        builder.node("Relu", "r2", ["bv"], "r2v"),
        outputs=["rv", "r2v"],
    )


def test_files_that_say_little_and_nodes_without_names() -> None:
    tensors = frame(0)
    bare = edited(
        plain_file(),
        drop=("stride", "padding", "dilation", "input_spatial_shape", "output_spatial_shape", "rulebook",
              "output_bound", "ndim", "groups", "output_padding", "inverse", "transposed"),
        names={"b": "", "r": ""},
    )  # fmt: skip
    graph = file_graph(bare, spatial_shape=SHAPE).graph
    assert [layer.name for layer in layers(graph)] == ["a", "bv", "s", "r2"]
    assert [layer.activation_name for layer in layers(graph) if layer.kind == "add"] == ["rv"]
    assert_same(graph, bare, [t.numpy() for t in tensors], spatial_shape=SHAPE)
    with pytest.raises(OnnxError, match="does not say how large the grid is"):
        file_graph(bare)


def test_an_add_that_others_read_keeps_its_relu_apart() -> None:
    data = builder.build_onnx(
        conv("a", "features", "av", (3, 4)),
        builder.add("s", "av", "av", "sv"),
        builder.node("Relu", "r", ["sv"], "rv"),
        conv("c", "rv", "cv", (4, 4)),
        outputs=["cv", "sv"],
    )
    graph = file_graph(data).graph
    assert [layer.kind for layer in layers(graph)] == ["convolution", "add", "relu", "convolution"]
    assert_same(graph, data, [t.numpy() for t in frame(0)])


def test_files_that_cannot_be_graphs(tmp_path: Path) -> None:
    with pytest.raises(OnnxError, match="several nodes named 'a'"):
        file_graph(edited(plain_file(), names={"b": "a"}))
    with pytest.raises(OnnxError):
        file_graph(b"no file")
    with pytest.raises(OnnxError, match="there is none"):
        file_graph(tmp_path / "missing.onnx")
    with pytest.raises(OnnxError, match="'Softplus' is not part of the dialect"):
        gelu = builder.node("Softplus", "g", ["av"], "gv")
        file_graph(builder.build_onnx(conv("a", "features", "av", (3, 4)), gelu))


def test_weights_of_every_way_to_store_them() -> None:
    data = plain_file()
    model, expected = onnx.load_from_string(data), file_graph(data).graph
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if tensor.name == "a.weight":  # as float32
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float32), tensor.name))
        elif tensor.name == "b.weight":  # bits in int32_data
            bits = values.view(np.uint16).astype(np.int32).ravel().tolist()
            tensor.ClearField("raw_data")
            tensor.int32_data.extend(bits)
    found = file_graph(model.SerializeToString()).graph
    for own, read in zip(layers(expected), layers(found), strict=True):
        if own.kind == "convolution":
            assert torch.equal(own.weight, read.weight) and read.weight.dtype == torch.float32
