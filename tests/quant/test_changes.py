# SPDX-License-Identifier: Apache-2.0
"""Changing weights and biases of a captured graph, and what it remembers of the original."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch

from scn_fx.errors import CalibrationError, OverflowedError
from scn_fx.graph import Layer, fingerprint, layers
from scn_fx.quant.changes import changed_layers, note_change, original_fingerprint, set_bias, set_weight
from tests.quant.graphs import GraphBuilder, frame, residual

FRAME = frame(1)


def convolution(graph: torch.fx.GraphModule, name: str) -> Layer:
    return next(layer for layer in layers(graph) if layer.name == name)


def without_bias() -> torch.fx.GraphModule:
    """One convolution whose bias is None."""
    build = GraphBuilder()
    node = build.conv(build.features, "c", (3, 4), relu=False)
    bias = node.args[2]
    node.update_arg(2, None)
    build.graph.erase_node(bias)
    return build.finish(node)


def test_a_new_weight_is_rounded_to_float16_and_used() -> None:
    graph = residual()
    layer = convolution(graph, "conv1.0.conv2")
    before = graph(*FRAME)
    wanted = torch.randn(layer.weight.shape) / 3
    set_weight(layer, wanted.double())
    assert torch.equal(layer.weight, wanted.half().float())
    assert layer.weight.dtype == torch.float32 and not torch.equal(graph(*FRAME), before)


def test_the_original_fingerprint_survives_changes_copies_and_pickles() -> None:
    graph = residual()
    original = fingerprint(graph)
    assert original_fingerprint(graph) == original and changed_layers(graph) == []
    note_change(graph)
    assert changed_layers(graph) == []
    layer = convolution(graph, "conv1.0.conv1")
    set_weight(layer, layer.weight * 2)
    set_bias(convolution(graph, "extra_conv.0"), torch.zeros(8))
    for each in (graph, copy.deepcopy(graph)):
        assert fingerprint(each) != original == original_fingerprint(each)
        assert [layer.name for layer in changed_layers(each)] == ["conv1.0.conv1", "extra_conv.0"]
    assert pickle.loads(pickle.dumps(graph.meta))["scn_fx"]["original_fingerprint"] == original


def test_weights_that_change_back_are_not_changed() -> None:
    graph = residual()
    layer = convolution(graph, "conv1.0.conv1")
    kept = layer.weight.clone()
    set_weight(layer, kept * 2)
    set_weight(layer, kept)
    assert changed_layers(graph) == []


def test_weights_trained_in_place_are_seen_too() -> None:
    graph = residual()
    note_change(graph)
    with torch.no_grad():
        convolution(graph, "conv_input.0").weight.mul_(2)
    assert [layer.name for layer in changed_layers(graph)] == ["conv_input.0"]


def test_a_layer_without_bias_gets_one() -> None:
    graph = without_bias()
    features, indices = FRAME
    before = graph(features, indices)
    bias = torch.tensor([0.5, -1, 2, 0])
    set_bias(convolution(graph, "c"), bias)
    np.testing.assert_allclose(
        graph(features, indices).numpy(), (before + bias).numpy(), rtol=1e-6, atol=1e-6
    )
    graph.graph.lint()
    assert [layer.name for layer in changed_layers(graph)] == ["c"]
    set_bias(convolution(graph, "c"), -bias)
    assert len([n for n in graph.graph.nodes if n.op == "get_attr"]) == 2


def test_a_weight_that_two_layers_share_changes_in_one_alone() -> None:
    build = GraphBuilder()
    x = build.conv(build.features, "a", (3, 3))
    y = build.conv(x, "b", (3, 3))
    y.update_arg(1, x.args[1])
    graph = build.finish(y)
    first = convolution(graph, "a").weight.clone()
    set_weight(convolution(graph, "b"), first * 2)
    assert torch.equal(convolution(graph, "a").weight, first)
    assert torch.equal(convolution(graph, "b").weight, (first * 2).half().float())
    graph(*FRAME)


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (torch.zeros(4, 3, 3, 3, 5), CalibrationError, r"conv1\.0\.conv1.*\[4, 3, 3, 3, 4\].*5\]"),
        (torch.zeros(4, 3, 3, 3, 4, dtype=torch.int32), CalibrationError, "float tensor.*int32"),
        (torch.full((4, 3, 3, 3, 4), torch.nan), CalibrationError, "NaN"),
        (torch.full((4, 3, 3, 3, 4), 7e4), OverflowedError, "70000.*float16"),
    ],
)
def test_unusable_weights_are_refused_and_nothing_changes(
    value: torch.Tensor, error: type[Exception], text: str
) -> None:
    graph = residual()
    with pytest.raises(error, match=text):
        set_weight(convolution(graph, "conv1.0.conv1"), value)
    assert "original_fingerprint" not in graph.meta["scn_fx"]


def test_an_add_has_no_bias() -> None:
    graph = residual()
    with pytest.raises(CalibrationError, match=r"conv1\.0\.add.*only a convolution"):
        set_bias(convolution(graph, "conv1.0.add"), torch.zeros(4))
