# SPDX-License-Identifier: Apache-2.0
"""Quantisation-aware training of a calibrated graph: its own operators are the forward, rounding included.

The calibrated graph already computes with the integers of the engine, and its operators pass gradients
straight through every rounding (Bengio et al. 2013, arXiv:1308.3432; nothing passes where a value is
clipped). So training needs no module that imitates quantisation: `prepare_qat` makes the weights trainable,
`refresh_weight_ranges` lets the ranges follow them, `finish_qat` rounds them to what files hold.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.fx import GraphModule

from scn_fx.graph import Layer, metadata, set_all, set_metadata
from scn_fx.graph import layers as graph_layers
from scn_fx.quant.changes import note_change, set_bias, set_weight
from scn_fx.quant.integers import LEVELS
from scn_fx.quant.layer_choice import int8_convolutions
from scn_fx.quant.ranges import quantizable, weight_ranges
from scn_fx.quant.weight_levels import ranges_at

__all__ = ["TrainableLayer", "finish_qat", "prepare_qat", "refresh_weight_ranges", "trainable_layers"]


_LEVELS = "qat_levels"  # in the graph's metadata while it trains


class TrainableLayer:
    """One convolution that trains.

    Attributes:
        layer: the convolution.
        weight: float32 [out, kz, ky, kx, in]; the operators round it to float16, and to int8 after that.
        bias: float32 [out].
    """

    def __init__(self, layer: Layer):
        self.layer = layer
        self.weight = _parameter(layer, "weight")
        self.bias = _parameter(layer, "bias")


def prepare_qat(graph: GraphModule, *, layers: Sequence[str] | str = "*") -> list[TrainableLayer]:
    """Make weights and biases of int8 convolutions trainable parameters of `graph`; in topological order.

    Run the graph as ever, with gradients enabled, on whichever device it is; call `refresh_weight_ranges`
    after each step of the optimiser, and `finish_qat` at the end. Float16 layers, input ranges and ranges of
    Adds stay as they are. A convolution without a bias gets one, of zeros.

    Args:
        graph: a calibrated graph (see `quant.calibrate`); all of its parameters that are not chosen stop
            training.
        layers: shell-style patterns of layer names; all int8 convolutions by default.

    Raises CalibrationError for a graph without int8 convolutions with ranges, or a pattern without a match.
    """
    chosen = int8_convolutions(graph, layers)
    note_change(graph)
    calibrated = [layer for layer in quantizable(graph) if layer.spec.weighted]
    levels = {layer.name: _largest_integers(layer) for layer in calibrated if layer.weight_dynamic_ranges}
    set_metadata(graph, **{_LEVELS: levels})
    graph.requires_grad_(False)
    for layer in _named(graph, chosen):
        if layer.bias is None:
            set_bias(layer, torch.zeros(layer.weight.shape[0], device=layer.weight.device))
        for what in ("weight", "bias"):
            _make_trainable(layer, what)
    return trainable_layers(graph)


def trainable_layers(graph: GraphModule) -> list[TrainableLayer]:
    """The convolutions that `prepare_qat` has made trainable, in topological order."""
    return [
        TrainableLayer(layer)
        for layer in graph_layers(graph)
        if layer.spec.weighted and layer.bias is not None and _stored(layer, "weight").requires_grad
    ]


def refresh_weight_ranges(graph: GraphModule) -> None:
    """Set the weight ranges of all int8 convolutions to what their weights need now.

    The largest magnitude of each output channel after rounding to float16 becomes the whole number that it
    was when `prepare_qat` was called (127 in a graph that is not trained). All layers' ranges come from the
    device in one transfer.

    Raises CalibrationError for weights that are not finite, or too small or large for a range.
    """
    found = [
        layer
        for layer in quantizable(graph)
        if layer.spec.weighted and layer.weight_dynamic_ranges is not None
    ]
    if not found:
        return
    with torch.no_grad():
        largest = torch.cat([layer.weight.half().float().abs().amax(dim=(1, 2, 3, 4)) for layer in found])
    values = iter(largest.cpu().split([layer.weight.shape[0] for layer in found]))
    levels = metadata(graph).get(_LEVELS) or {}
    changes = {}
    for layer in found:
        level = torch.tensor(levels.get(layer.name, [LEVELS]))
        changes[layer] = {"weight_dynamic_ranges": list(weight_ranges(layer, ranges_at(next(values), level)))}
    set_all(graph, changes)


def _largest_integers(layer: Layer) -> list[int]:
    """What the largest weight of each output channel is in the layer's integers."""
    largest = layer.weight.half().float().abs().amax(dim=(1, 2, 3, 4)).double()
    ranges = torch.tensor(layer.weight_dynamic_ranges, dtype=torch.float64, device=largest.device)
    found: list[int] = (LEVELS * largest / ranges).round().clamp(1, LEVELS).long().tolist()
    return found


def finish_qat(graph: GraphModule) -> None:
    """Round trained weights and biases to float16, refresh their ranges, and end training.

    The graph computes the same bits as before, and is exported, cached and run as any calibrated graph.

    Raises OverflowedError for a weight or bias that does not fit in float16, CalibrationError for one that is
    not finite; names the layer.
    """
    for trained in trainable_layers(graph):
        weight, bias = trained.weight.detach().clone(), trained.bias.detach().clone()
        trained.weight.requires_grad_(False)
        trained.bias.requires_grad_(False)
        set_weight(trained.layer, weight)
        set_bias(trained.layer, bias)
    graph.requires_grad_(False)
    refresh_weight_ranges(graph)
    set_metadata(graph, **{_LEVELS: None})


def _named(graph: GraphModule, names: Sequence[str]) -> list[Layer]:
    wanted = set(names)
    return [layer for layer in quantizable(graph) if layer.name in wanted]


def _owner(layer: Layer, what: str) -> tuple[nn.Module, str]:
    """The module that stores a layer's tensor, and the tensor's name there."""
    path, _, leaf = str(layer.argument(what).target).rpartition(".")
    return layer.graph.get_submodule(path), leaf


def _stored(layer: Layer, what: str) -> torch.Tensor:
    owner, leaf = _owner(layer, what)
    value: torch.Tensor = getattr(owner, leaf)
    return value


def _parameter(layer: Layer, what: str) -> nn.Parameter:
    value = _stored(layer, what)
    assert isinstance(value, nn.Parameter)
    return value


def _make_trainable(layer: Layer, what: str) -> None:
    value = _stored(layer, what)
    if isinstance(value, nn.Parameter) and value.dtype == torch.float32:
        value.requires_grad_(True)
        return
    owner, leaf = _owner(layer, what)
    delattr(owner, leaf)
    owner.register_parameter(leaf, nn.Parameter(value.detach().float().clone()))
