# SPDX-License-Identifier: Apache-2.0
"""Captured for the project's own dialect: concatenations and BatchNorms stay layers, gates are products."""

from __future__ import annotations

import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import quant
from scn_fx.capture import capture
from scn_fx.errors import CalibrationWarning, CaptureError, ExportError
from scn_fx.exporting import export_onnx
from scn_fx.graph import layers
from scn_fx.runtime import Engine
from tests.capture.frames import assert_same_as_spconv, frame, randomise, sparse
from tests.capture.test_channel_maps import joined, norm, subm
from tests.oracle.dialect import read_network
from tests.oracle.network import run_network


class UBlock(nn.Module):
    """A level of a U-Net with pre-activation, and a gate behind it."""

    def __init__(self, width: int, other: int) -> None:
        super().__init__()
        self.first = subm(4, width)
        self.inner = subm(width, other)
        self.norm = norm(width + other)
        self.after = subm(width + other, 16)
        self.gate = subm(16, 16, 1)
        self.last = subm(16, 4)

    def forward(self, x: Any) -> Any:
        x = self.first(x)
        x = joined(x, self.inner(x))
        x = self.after(x.replace_feature(torch.relu(self.norm(x.features))))
        x = x.replace_feature(x.features * torch.sigmoid(self.gate(x).features))
        return self.last(x)


class Squared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = subm(4, 8), subm(8, 4)

    def forward(self, x: Any) -> Any:
        x = self.first(x)
        return self.last(x.replace_feature(x.features * x.features))


class Normalised(nn.Module):
    """The convolution of a point transformer's block, and a GroupNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.linear, self.norm = subm(4, 12), nn.Linear(12, 12), nn.LayerNorm(12)
        self.groups = nn.GroupNorm(3, 12, affine=False)
        self.middle, self.last = subm(12, 12), subm(12, 4)

    def forward(self, x: Any) -> Any:
        x = self.first(x)
        x = self.middle(x.replace_feature(nn.functional.gelu(self.norm(self.linear(x.features)))))
        return self.last(x.replace_feature(self.groups(x.features)))


def test_layer_norm_and_group_norm(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, (features, indices) = randomise(Normalised()).eval(), frame()
    with torch.no_grad():
        model.norm.weight.uniform_(0.5, 2.0)
        model.norm.bias.normal_()
    graph = capture(model, (sparse(features, indices),))
    names = {layer.name: layer.kind for layer in layers(graph)}
    assert names["norm"] == names["groups"] == "group_norm"
    assert_same_as_spconv(graph, model, features, indices)
    assert _has_one_result(graph, features, indices, tmp_path / "n.onnx", "dynamo")


def test_a_layer_norm_over_more_than_channels_is_refused() -> None:
    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = subm(4, 8)

        def forward(self, x: Any) -> Any:
            x = self.first(x)
            return x.replace_feature(nn.functional.group_norm(x.features.t()[None], 2)[0].t())

    features, indices = frame()
    with pytest.raises(CaptureError, match="not computed from features row by row"):
        capture(Whole().eval(), (sparse(features, indices),))


def _has_one_result(
    graph: Any, features: torch.Tensor, indices: torch.Tensor, path: Path, exporter: str
) -> bool:
    """Calibrates and exports a graph; whether graph, engine and oracle have the same bits."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CalibrationWarning)
        quant.calibrate(graph, [(features, indices)])
    export_onnx(graph, path, exporter, "scn_fx")
    made, sites = (value.float().numpy() for value in graph(features, indices))
    rows, found = Engine(path)(features.numpy(), indices.numpy())
    oracle = run_network(path, features.numpy().astype(np.float16), indices.numpy(), 1).outputs[0]
    return (
        np.array_equal(found, sites)
        and np.array_equal(rows.astype(np.float32), made)
        and np.array_equal(oracle.values.astype(np.float32), made)
    )


def _model(width: int, other: int) -> nn.Module:
    torch.manual_seed(width)
    model = UBlock(width, other)
    randomise(model)
    return model.eval()


WIDTHS = [(16, 16), (32, 16), (8, 24), (16, 5), (3, 2)]


@pytest.mark.parametrize("widths", WIDTHS, ids=str)
def test_concatenation_and_batch_norm_are_layers(widths: tuple[int, int]) -> None:
    model, (features, indices) = _model(*widths), frame()
    x = sparse(features, indices)
    graph = capture(model, (x,), dialect="scn_fx")
    kinds = Counter(layer.kind for layer in layers(graph))
    assert (kinds["concat"], kinds["affine"], kinds["multiply"], kinds["add"]) == (1, 1, 1, 0)
    assert {layer.name: layer.kind for layer in layers(graph)}["norm"] == "affine"
    other = capture(model, (x,))
    assert not {"concat", "affine"} & {layer.kind for layer in layers(other)}
    assert_same_as_spconv(graph, model, features, indices)
    assert_same_as_spconv(other, model, features, indices)


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
@pytest.mark.parametrize("widths", WIDTHS, ids=str)
def test_int8_engine_graph_and_oracle_have_the_same_bits(
    widths: tuple[int, int], exporter: str, tmp_path: Path
) -> None:
    features, indices = frame()
    graph = capture(_model(*widths), (sparse(features, indices),), dialect="scn_fx")
    path = tmp_path / "u.onnx"
    assert _has_one_result(graph, features, indices, path, exporter)
    types = Counter(node.op_type for node in read_network(path, "scn_fx").nodes)
    assert types["Concat"] == types["Affine"] == types["Mul"] == 1
    # Behind concatenation, scale and ReLU there are int8 layers alone: nothing is rounded on the way to them.
    assert {layer.name: layer.output_precision for layer in layers(graph) if layer.spec.weighted} == {
        **dict.fromkeys(("first", "inner", "after", "gate"), "int8"),
        "last": "fp16",
    }


def test_libspconv_refuses_them_by_name(tmp_path: Path) -> None:
    features, indices = frame()
    graph = capture(_model(16, 16), (sparse(features, indices),), dialect="scn_fx")
    with pytest.raises(ExportError, match="the dialect libspconv has no form of concat"):
        export_onnx(graph, tmp_path / "u.onnx")


def test_a_gate_is_refused_by_libspconv_alone(tmp_path: Path) -> None:
    features, indices = frame()
    graph = capture(Squared().eval(), (sparse(features, indices),))
    with pytest.raises(ExportError, match="'mul': the dialect libspconv has no form of multiply"):
        export_onnx(graph, tmp_path / "u.onnx")


def test_an_unknown_dialect() -> None:
    features, indices = frame()
    with pytest.raises(CaptureError, match="dialect must be one of libspconv, scn_fx, got 'onnx'"):
        capture(_model(16, 16), (sparse(features, indices),), dialect="onnx")
