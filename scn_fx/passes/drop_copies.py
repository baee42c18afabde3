# SPDX-License-Identifier: Apache-2.0
"""Remove copies, and casts that keep every value."""

from __future__ import annotations

import torch
from torch import fx

from scn_fx.passes import nodes
from scn_fx.passes.base import GraphPass

__all__ = ["DropCopies"]

_COPIES = frozenset({"_to_copy", "clone", "contiguous", "lift_fresh_copy", "to"})


class DropCopies(GraphPass):
    """Drop nodes whose result equals their input.

    A cast of the graph's own inputs goes too where the graph takes the result's type: indices are int32, and
    features may come as float16, which holds what the network reads. (Operators that return their input
    itself are gone: `Functionalise`.)
    """

    def call(self, graph: fx.GraphModule) -> bool:
        modified = False
        for node in list(graph.graph.nodes):
            if _equals_its_input(node):
                node.replace_all_uses_with(node.args[0])
                graph.graph.erase_node(node)
                modified = True
        return modified


def _equals_its_input(node: fx.Node) -> bool:
    name = nodes.aten_name(node)
    if name == "add":  # sum([x, …]) starts from the number 0
        return isinstance(node.args[1], int | float) and node.args[1] == 0 and _same_type(node)
    if name in _COPIES:
        source = node.args[0]
        of_input = isinstance(source, fx.Node) and source.op == "placeholder"
        return _same_type(node) or (of_input and _taken_as(_dtype(node), _dtype(source)))
    return False


def _taken_as(wanted: torch.dtype | None, given: torch.dtype | None) -> bool:
    """Whether a graph computes the same if an input of type `given` is not cast to `wanted`."""
    if wanted == torch.int32:
        return True
    return wanted == torch.float32 and given == torch.float16


def _same_type(node: fx.Node) -> bool:
    return _dtype(node) is not None and _dtype(node) is _dtype(node.args[0])


def _dtype(node: object) -> torch.dtype | None:
    return getattr(node.meta.get("val"), "dtype", None) if isinstance(node, fx.Node) else None
