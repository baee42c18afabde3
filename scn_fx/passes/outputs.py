# SPDX-License-Identifier: Apache-2.0
"""What a graph may return: dense maps and sparse tensors that its layers compute, each of them once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import fx

from scn_fx.errors import CaptureError
from scn_fx.graph_outputs import output_entries
from scn_fx.operators.spec import Kind
from scn_fx.passes import nodes
from scn_fx.passes.lower_operators import gives_dense_map

__all__ = ["check_outputs", "value_sites"]


def value_sites(graph: fx.GraphModule, features: fx.Node) -> fx.Node | None:
    """The sites of a feature value, see `nodes.sites`; those of the graph's own input are its indices."""
    found = nodes.sites(features)
    if found is None or found.op != "placeholder":
        return found
    read = nodes.read_as(graph, Kind.SITES)
    inputs = [node for node in graph.graph.find_nodes(op="placeholder") if node in read]
    return inputs[0] if found not in inputs and len(inputs) == 1 else found


def check_outputs(graph: fx.GraphModule, chosen: Sequence[str], available: str) -> None:
    """Raise CaptureError unless the graph returns what a graph can, each value once.

    Args:
        graph: after all passes.
        chosen: the outputs as the user named them, in order, for messages.
        available: the model's outputs in words.
    """
    entries = output_entries(graph.graph.output_node().args[0])
    names = list(chosen) if len(chosen) == len(entries) else [f"output {i}" for i in range(len(entries))]
    first: dict[Any, str] = {}
    for name, entry in zip(names, entries, strict=True):
        _check(graph, name if len(entries) > 1 else "The output", entry, available)
        if entry[0] in first:
            raise CaptureError(
                f"{first[entry[0]]} and {name} are one value ({nodes.where(entry[0])}). Name it once: each "
                "output of a file is a value of its own."
            )
        first[entry[0]] = name


def _check(graph: fx.GraphModule, name: str, entry: tuple[Any, ...], available: str) -> None:
    value = entry[0]
    if isinstance(value, fx.Node) and value.op == "placeholder":
        raise CaptureError(
            f"{name} is the model's input {value.name!r} as it came, which no layer computes. Leave it out, "
            "and take it from the frame."
        )
    if len(entry) == 1 and gives_dense_map(value):
        return
    if len(entry) == 2 and isinstance(value, fx.Node) and nodes.sites(value) is not None:
        of_indices = nodes.index_sites(entry[1])
        if of_indices is not None and of_indices is value_sites(graph, value):
            return
    shown = value if len(entry) == 1 else entry
    listed = f" The model returns {available}." if available else ""
    raise CaptureError(
        f"{name} must be a dense map or a sparse tensor (features, indices) that the captured layers "
        f"compute, got {shown}. Choose another output=.{listed}"
    )
