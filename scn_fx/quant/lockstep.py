# SPDX-License-Identifier: Apache-2.0
"""Runs a calibrated graph twice at once, in float32 and in its own arithmetic, layer by layer on all frames.

Whoever improves a layer sees its real quantised inputs, which the improved layers before it have made, and
what the float network computes at the same place. Values are freed after their last reader, so that memory
holds the frontier of the graph alone: the values that are still to be read, of all frames.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from scn_fx.errors import CalibrationError, ScnError
from scn_fx.graph import Layer, layers
from scn_fx.operators.activations import NO_ACTIVATION
from scn_fx.quant.integers import quantise, scale_of

__all__ = ["Lockstep", "PairedInput"]

_FLOAT = {"precision": "fp32", "output_precision": "fp32"}


@dataclass(frozen=True)
class _Pair:
    """One value of one frame in both runs; kernel maps and sites are one and the same object."""

    exact: Any
    quantised: Any


@dataclass(frozen=True)
class PairedInput:
    """What one convolution has to do with one frame.

    Attributes:
        features: the quantised run's input, float [N, in].
        kernel_map: int32 [M, K].
        sums: what the float network computes before the activation, float32 [M, out].
        exact_offset: what is added to the sums before the ReLU in the float network, float32 [M, out]: the
            other operand of the Add, where an Add is the only reader. None where nothing is added.
        offset: the same in the quantised run.
    """

    features: torch.Tensor
    kernel_map: torch.Tensor
    sums: torch.Tensor
    exact_offset: torch.Tensor | None
    offset: torch.Tensor | None


class Lockstep:
    """A run over `frames` (lists of tensors, features rounded to float16) of both networks.

    `reference` gives the weights of the float network: the graph itself as it is when the run starts, or a
    graph of the same layers, such as a copy made before its weights were changed.
    """

    def __init__(
        self,
        graph: fx.GraphModule,
        frames: Sequence[Sequence[torch.Tensor]],
        reference: fx.GraphModule | None = None,
    ):
        self._graph = graph
        self._frames = frames
        self._layers = {layer.node: layer for layer in layers(graph)}
        self._exact = _parameters(graph, graph if reference is None else reference)
        self._nodes = list(graph.graph.nodes)
        self._last = _last_readers(self._nodes)
        self._values: list[dict[fx.Node, _Pair]] = [{} for _ in frames]

    def convolutions(self) -> Iterator[tuple[Layer, list[PairedInput]]]:
        """Each int8 convolution with its inputs, before the quantised run computes it.

        The caller may change weight and bias of that layer; the run goes on with the new ones.
        """
        with torch.no_grad():
            for node in self._nodes:
                yield from self._step(node)
                for values in self._values:
                    for read in self._last.get(node, ()):
                        values.pop(read, None)

    def _step(self, node: fx.Node) -> Iterator[tuple[Layer, list[PairedInput]]]:
        if node.op == "placeholder":
            position = [n for n in self._nodes if n.op == "placeholder"].index(node)
            for values, tensors in zip(self._values, self._frames, strict=True):
                values[node] = _Pair(tensors[position], tensors[position])
        elif node.op == "call_function":
            layer = self._layers.get(node)
            if layer is not None and layer.spec.weighted:
                yield from self._convolution(layer)
            else:
                for frame in range(len(self._frames)):
                    self._values[frame][node] = self._call(node, frame)

    def _convolution(self, layer: Layer) -> Iterator[tuple[Layer, list[PairedInput]]]:
        node = layer.node
        sums = [self._sums(layer, frame) for frame in range(len(self._frames))]
        if layer.precision == "int8":
            yield layer, [self._input(layer, frame, sums[frame]) for frame in range(len(self._frames))]
        for frame in range(len(self._frames)):
            exact = layer.fused.compute(sums[frame], layer.activation_parameter)
            self._values[frame][node] = _Pair(exact, self._run(node, frame, exact=False))

    def _sums(self, layer: Layer, frame: int) -> torch.Tensor:
        """The float network's result of a convolution, before the activation."""
        values = self._values[frame]
        weight, bias = self._exact[layer.name]
        arguments = {
            "features": values[layer.inputs[0]].exact,
            "weight": weight,
            "bias": bias,
            "kernel_map": values[layer.argument("kernel_map")].exact,
        }
        kwargs = {**layer.node.kwargs, **_FLOAT, "activation": NO_ACTIVATION}
        return self._named(frame, layer.node.target, (), {**kwargs, **arguments})

    def _input(self, layer: Layer, frame: int, sums: torch.Tensor) -> PairedInput:
        values = self._values[frame]
        exact, quantised = self._offsets(layer, frame)
        return PairedInput(
            values[layer.inputs[0]].quantised,
            values[layer.argument("kernel_map")].exact,
            sums,
            exact,
            quantised,
        )

    def _offsets(self, layer: Layer, frame: int) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """The other operand of the Add that alone reads the layer, if it is there already."""
        addition = sole_addition(layer, self._layers)
        if addition is None:
            return None, None
        position = 1 - addition.inputs.index(layer.node)
        pair = self._values[frame].get(addition.inputs[position])
        if pair is None:
            return None, None
        quantised = pair.quantised.float()
        if addition.precision == "int8":
            amax = addition.argument(addition.spec.input_ranges[position].attribute)
            wide = torch.tensor(amax, device=quantised.device)
            quantised = quantise(quantised, wide) * scale_of(wide)
        return pair.exact, quantised

    def _call(self, node: fx.Node, frame: int) -> _Pair:
        values = self._values[frame]
        quantised = self._run(node, frame, exact=False)
        differ = any(values[n].exact is not values[n].quantised for n in node.all_input_nodes if n in values)
        if not differ and node not in self._layers:
            return _Pair(quantised, quantised)
        return _Pair(self._run(node, frame, exact=True), quantised)

    def _run(self, node: fx.Node, frame: int, *, exact: bool) -> Any:
        values = self._values[frame]

        def value(read: fx.Node) -> Any:
            if read.op == "get_attr":
                return _attribute(self._graph, read)
            return values[read].exact if exact else values[read].quantised

        args, kwargs = fx.node.map_arg((node.args, node.kwargs), value)
        if exact and "precision" in kwargs:
            kwargs = {**kwargs, **_FLOAT}
        return self._named(frame, node.target, args, kwargs)

    @staticmethod
    def _named(frame: int, target: Any, args: Any, kwargs: Any) -> Any:
        try:
            return target(*args, **kwargs)
        except ScnError as error:
            raise type(error)(f"Frame {frame} of those used (counted from 0): {error}") from error


def sole_addition(layer: Layer, by_node: Mapping[fx.Node, Layer]) -> Layer | None:
    """The Add with a ReLU that alone reads a convolution without activation, once; None otherwise."""
    if layer.fused.operator or len(layer.node.users) != 1:
        return None
    (user,) = layer.node.users
    reader = by_node.get(user)
    if reader is None or not reader.spec.adds or not reader.fused.rectifies:
        return None
    return reader if reader.inputs.count(layer.node) == 1 else None


def _parameters(
    graph: fx.GraphModule, reference: fx.GraphModule
) -> dict[str, tuple[torch.Tensor, torch.Tensor | None]]:
    """Weight and bias of the float network, by layer name; copies, so that they stay what they are."""
    mine = {layer.name: layer for layer in layers(graph) if layer.spec.weighted}
    theirs = {layer.name: layer for layer in layers(reference) if layer.spec.weighted}
    for name, layer in mine.items():
        if name not in theirs or theirs[name].weight.shape != layer.weight.shape:
            other = f"{list(theirs[name].weight.shape)} there" if name in theirs else "is missing there"
            raise CalibrationError(
                f"The reference is no graph of the same layers: {name}, weight {list(layer.weight.shape)}, "
                f"{other}. Pass a copy of the graph itself, made before its weights were changed."
            )

    def copied(value: torch.Tensor | None, like: torch.Tensor) -> torch.Tensor | None:
        return None if value is None else value.detach().to(like.device, torch.float32, copy=True)

    result = {}
    for name, layer in mine.items():
        weight = copied(theirs[name].weight, layer.weight)
        assert weight is not None
        result[name] = (weight, copied(theirs[name].bias, layer.weight))
    return result


def _last_readers(nodes: Sequence[fx.Node]) -> dict[fx.Node, list[fx.Node]]:
    """For each node, the values that nobody needs after it."""
    last: dict[fx.Node, fx.Node] = {}
    for node in nodes:
        last[node] = node
        for read in node.all_input_nodes:
            last[read] = node
    result: dict[fx.Node, list[fx.Node]] = {}
    for read, node in last.items():
        result.setdefault(node, []).append(read)
    return result


def _attribute(graph: fx.GraphModule, node: fx.Node) -> torch.Tensor:
    value: Any = graph
    for part in str(node.target).split("."):
        value = getattr(value, part)
    return value.detach()
