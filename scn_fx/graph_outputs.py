# SPDX-License-Identifier: Apache-2.0
"""What a graph returns: dense maps, and features paired with their indices.

One output is returned as it is, several as a tuple of these. Graphs of earlier versions, and graphs made by
hand, may hold the parts of all outputs in one flat tuple, so that features and indices have to be told apart.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import fx

from scn_fx.graph_nodes import operator_spec

__all__ = ["Result", "graph_results", "listed", "output_entries", "paired", "returned"]


@dataclass(frozen=True)
class Result:
    """A dense map, or features with their indices.

    Attributes:
        node: the node of the map or the features.
        position: its place among all that the graph returns, see `listed`.
        indices: place of the indices that follow it; None for a dense map, or where none follow.
    """

    node: fx.Node
    position: int
    indices: int | None = None


def listed(value: Any) -> list[Any]:
    """All that a graph, or a run of it, returns, as one list: the pairs of sparse results are opened."""
    if not isinstance(value, tuple | list):
        return [value]
    return [part for item in value for part in listed(item)]


def output_entries(value: Any) -> list[tuple[Any, ...]]:
    """The outputs that the argument of an output node means: (map,), or (features, indices)."""
    if not isinstance(value, tuple | list):
        return [(value,)]
    if any(isinstance(item, tuple | list) for item in value):
        return [tuple(item) if isinstance(item, tuple | list) else (item,) for item in value]
    found: list[tuple[Any, ...]] = []
    for item in value:
        if _is_sites(item) and found and len(found[-1]) == 1 and not _is_sites(found[-1][0]):
            found[-1] = (*found[-1], item)
        else:
            found.append((item,))
    return found


def paired(value: fx.Node, indices: fx.Node | None) -> tuple[fx.Node, ...]:
    """One output: features with the node of their indices, or a dense map, which has none."""
    return (value,) if indices is None else (value, indices)


def returned(entries: Sequence[tuple[Any, ...]]) -> Any:
    """The argument of an output node for these outputs; `output_entries` takes it back."""
    bare = [entry[0] if len(entry) == 1 else entry for entry in entries]
    value = bare[0] if len(bare) == 1 else tuple(bare)
    # Indices that are an output of their own must not be taken for those of the map before them.
    return value if output_entries(value) == list(entries) else tuple(entries)


def graph_results(graph: fx.GraphModule) -> list[Result]:
    """The results of a graph but for indices, which belong to the features before them."""
    (end,) = graph.graph.find_nodes(op="output")
    found: list[Result] = []
    position = 0
    for entry in output_entries(end.args[0]):
        value = entry[0]
        if isinstance(value, fx.Node) and not _is_sites(value):
            found.append(Result(value, position, position + 1 if len(entry) > 1 else None))
        position += len(entry)
    return found


def _is_sites(node: object) -> bool:
    """Whether `node` holds indices or a kernel map rather than features."""
    if not isinstance(node, fx.Node):
        return False
    source = node.args[0] if node.target is operator.getitem else node
    spec = operator_spec(source)
    return node.op == "placeholder" or (spec is not None and not spec.layer)
