# SPDX-License-Identifier: Apache-2.0
"""Runs a captured graph with other precisions than its own, and computes again only what they change.

`quant.set_precision` refuses float32 beside other precisions, because no engine mixes them; to see what one
layer alone costs, everything around it must be exact. Here each layer may have any precision, and the
graph's nodes stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, log10
from typing import Any

import torch
from torch.fx import GraphModule, Interpreter, Node

from scn_fx.quant.precision import output_precisions
from scn_fx.quant.ranges import quantizable

__all__ = [
    "FLOAT",
    "Forms",
    "MixedRunner",
    "Noise",
    "Values",
    "engine_forms",
    "float_tensors",
    "graph_device",
]

Form = tuple[str, str]
"""Precision and output precision of a layer."""

Forms = Mapping[str, Form]
"""By layer name; a layer that is left out runs in float32."""

FLOAT: Form = ("fp32", "fp32")


def engine_forms(graph: GraphModule, chosen: Mapping[str, str]) -> dict[str, Form]:
    """The forms in which an engine runs the graph with these precisions (no "fp32" among others)."""
    outputs = output_precisions(graph, chosen)
    return {name: (precision, outputs[name]) for name, precision in chosen.items()}


def graph_device(graph: GraphModule) -> torch.device:
    """Where the graph's weights are."""
    for tensor in (*graph.parameters(), *graph.buffers()):
        return tensor.device
    return torch.device("cpu")


def float_tensors(result: Any) -> list[torch.Tensor]:
    """The feature values among what a graph returns; indices are integers."""
    if isinstance(result, torch.Tensor):
        return [result] if result.is_floating_point() else []
    if isinstance(result, Mapping):
        result = list(result.values())
    return [tensor for part in result for tensor in float_tensors(part)] if result is not None else []


@dataclass(frozen=True)
class Values:
    """Everything that one frame gives in certain forms: the value of each node, and the graph's result."""

    forms: Forms
    nodes: dict[Node, Any] = field(repr=False)
    result: Any = field(repr=False)

    @property
    def size(self) -> int:
        """Bytes of all tensors; one that several nodes share counts once."""
        found = {id(t): t for value in self.nodes.values() for t in _tensors(value)}
        return sum(t.numel() * t.element_size() for t in found.values())


class MixedRunner(Interpreter):
    """Runs a graph in the forms that each call names."""

    def __init__(self, graph: GraphModule):
        super().__init__(graph, garbage_collect_values=False)
        # Otherwise torch.fx appends the node's text to the arguments of our own errors.
        self.extra_traceback = False
        self.names = {layer.node: layer.name for layer in quantizable(graph)}
        self._forms: Forms = {}

    def values(self, tensors: Sequence[torch.Tensor], forms: Forms, known: Values | None = None) -> Values:
        """The values of a frame (tensors as the graph takes them, in order).

        `known` are those of the same frame in other forms: what does not depend on a layer whose form differs
        is taken from there.
        """
        kept: dict[Node, Any] = {}
        if known is not None:
            stale = self._dependent(
                node
                for node, name in self.names.items()
                if forms.get(name, FLOAT) != known.forms.get(name, FLOAT)
            )
            kept = {node: value for node, value in known.nodes.items() if node not in stale}
        self._forms = forms
        with torch.no_grad():
            result = self.run(*tensors, initial_env=kept)
        nodes = {node: value for node, value in self.env.items() if node.op != "output"}
        self.env = {}
        return Values(dict(forms), nodes, result)

    def run_node(self, n: Node) -> Any:
        """Run one node, in the form of the call if it is a layer with a precision."""
        if n not in self.names:
            return super().run_node(n)
        precision, output_precision = self._forms.get(self.names[n], FLOAT)
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        forms = {"precision": precision, "output_precision": output_precision}
        return self.call_function(n.target, args, {**kwargs, **forms})

    def _dependent(self, changed: Iterable[Node]) -> set[Node]:
        """Nodes of other forms, and all that is computed from them."""
        stale = set(changed)
        assert isinstance(self.module, GraphModule)
        for node in self.module.graph.nodes:
            if node not in stale and any(source in stale for source in node.all_input_nodes):
                stale.add(node)
        return stale


class Noise:
    """Signal and error of a graph's outputs, summed over frames in float64."""

    def __init__(self) -> None:
        self._sums: list[tuple[float, float]] = []

    def add(self, reference: Any, result: Any) -> None:
        """Count a frame: what the graph returns in float32, and what it returned."""
        pairs = zip(float_tensors(reference), float_tensors(result), strict=True)
        sums = [_energies(a, b) for a, b in pairs]
        before = self._sums or [(0.0, 0.0)] * len(sums)
        self._sums = [(s + a, n + b) for (s, n), (a, b) in zip(before, sums, strict=True)]

    @property
    def ratio(self) -> float:
        """Error over signal (energies) of the output that has lost most; 0 if all are equal."""
        return max((_ratio(signal, noise) for signal, noise in self._sums), default=0.0)

    @property
    def sqnr_db(self) -> float:
        """Signal to quantisation noise ratio of that output in dB; infinite if all are equal."""
        return decibels(self.ratio)


def decibels(ratio: float) -> float:
    """The SQNR in dB of an error that is `ratio` times the signal (energies)."""
    return inf if ratio == 0.0 else -inf if ratio == inf else -10.0 * log10(ratio)


def _ratio(signal: float, noise: float) -> float:
    return noise / signal if signal else (inf if noise else 0.0)


def _energies(reference: torch.Tensor, result: torch.Tensor) -> tuple[float, float]:
    """Sums of reference² and (reference - result)², in float64 without a float64 copy of a dense map."""
    signal = noise = 0.0
    for a, b in zip(reference.flatten().split(_PIECE), result.flatten().split(_PIECE), strict=True):
        wide = a.double()
        signal += float(wide @ wide)
        error = wide - b.double()
        noise += float(error @ error)
    return signal, noise


# Values that are widened at a time.
_PIECE = 1 << 20


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    return [t for part in value for t in _tensors(part)] if isinstance(value, tuple | list) else []
