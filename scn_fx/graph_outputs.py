# SPDX-License-Identifier: Apache-2.0
"""The one rule that tells features from indices among the results of a graph, and pairs them."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

from torch import fx

from scn_fx.graph_nodes import operator_spec

__all__ = ["Result", "graph_results", "listed"]


@dataclass(frozen=True)
class Result:
    """A dense map, or features with their indices.

    Attributes:
        node: the node of the map or the features.
        position: its place among the results.
        indices: place of the indices that follow it; None for a dense map, or where none follow.
    """

    node: fx.Node
    position: int
    indices: int | None = None


def listed(value: Any) -> list[Any]:
    """The results of a graph, or of a run of it, as a list: a single one is given as it is."""
    return list(value) if isinstance(value, tuple | list) else [value]


def graph_results(graph: fx.GraphModule) -> list[Result]:
    """The results of a graph but for indices, which belong to the features before them."""
    (end,) = graph.graph.find_nodes(op="output")
    found: list[Result] = []
    for position, value in enumerate(listed(end.args[0])):
        if not isinstance(value, fx.Node):
            continue
        if not _is_sites(value):
            found.append(Result(value, position))
        elif found and found[-1].indices is None and found[-1].position == position - 1:
            found[-1] = Result(found[-1].node, found[-1].position, position)
    return found


def _is_sites(node: fx.Node) -> bool:
    """Whether `node` holds indices or a kernel map rather than features."""
    source = node.args[0] if node.target is operator.getitem else node
    spec = operator_spec(source)
    return node.op == "placeholder" or (spec is not None and not spec.layer)
