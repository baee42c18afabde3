# SPDX-License-Identifier: Apache-2.0
"""Kernel maps that passes add to a graph, and the grids of the sites that they read."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any

import torch
from torch import fx

import scn_fx.ops  # noqa: F401 - registers the operators
from scn_fx.dimensions import narrowed
from scn_fx.geometry import MOST_SITES, ConvGeometry
from scn_fx.graph import operator_spec
from scn_fx.passes import nodes

__all__ = ["add_call", "add_conv_map", "bound_of", "extents_of", "item_of", "readings"]

_NUMBERS = (
    "input_spatial_shape", "output_spatial_shape", "kernel_size", "stride", "padding", "dilation",
    "output_padding", "transposed",
)  # fmt: skip


def extents_of(indices: fx.Node) -> list[int] | None:
    """Batch size and grid of indices, one number for each of their columns; None if nothing tells."""
    axes = int(indices.meta["val"].shape[1]) - 1
    source = nodes.index_sites(indices)
    maker = operator_spec(source)
    if source is not None and maker is not None and maker.grid is not None and maker.grid.made:
        shape: Any = source.kwargs[maker.grid.made]
        return [int(source.kwargs["batch_size"]), *narrowed(shape, axes)]  # type: ignore[arg-type]
    for shape, batch in readings(indices):
        return [batch, *narrowed(shape, axes)]
    return None


def readings(indices: fx.Node) -> Iterator[tuple[list[int], int]]:
    """Grid (z, y, x) and batch size, by the operators that read indices."""
    for user in indices.users:
        spec = operator_spec(user)
        if spec is not None and spec.grid is not None and not spec.grid.larger:
            shape: Any = user.kwargs[spec.grid.argument]
            yield list(shape), int(user.kwargs["batch_size"])  # type: ignore[arg-type]


def bound_of(graph: fx.GraphModule) -> int:
    """The most sites that layers of a graph may have."""
    bounds: list[Any] = [n.kwargs["output_bound"] for n in graph.graph.nodes if "output_bound" in n.kwargs]
    return max((int(each) for each in bounds), default=MOST_SITES)


def add_call(
    graph: fx.GraphModule, like: fx.Node, called: str, operands: tuple[Any, ...], **keywords: Any
) -> fx.Node:
    """A call of the operator `called` where the graph inserts, made by the module that made `like`."""
    made = graph.graph.call_function(getattr(torch.ops.scn_fx, called).default, operands, keywords)
    nodes.copy_place(like, made)
    return made


def item_of(graph: fx.GraphModule, both: fx.Node, item: int) -> fx.Node:
    """One of several results."""
    made = graph.graph.call_function(operator.getitem, (both, item))
    nodes.copy_place(both, made)
    return made


def add_conv_map(
    graph: fx.GraphModule, like: fx.Node, indices: fx.Node, geometry: ConvGeometry, name: str
) -> tuple[fx.Node, fx.Node]:
    """Output sites and map of a geometry over indices, in a map of its own that is called `name`."""
    extents = extents_of(indices)
    assert extents is not None
    numbers = {key: getattr(geometry, key) for key in _NUMBERS}
    keywords = {key: list(value) if isinstance(value, tuple) else value for key, value in numbers.items()}
    both = add_call(
        graph, like, "conv_map", (indices,), name=name, batch_size=extents[0], rulebook=name,
        output_bound=bound_of(graph), **keywords,
    )  # fmt: skip
    sites, kernel_map = item_of(graph, both, 0), item_of(graph, both, 1)
    sites.meta["val"] = indices.meta["val"]  # as wide
    return sites, kernel_map
