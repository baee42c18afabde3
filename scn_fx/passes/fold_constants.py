# SPDX-License-Identifier: Apache-2.0
"""Compute what depends on parameters alone."""

from __future__ import annotations

import torch
from torch import fx

from scn_fx.passes import nodes
from scn_fx.passes.base import GraphPass

__all__ = ["FoldConstants"]

_RANDOM = torch.Tag.nondeterministic_seeded


class FoldConstants(GraphPass):
    """An aten operator whose tensors are all parameters or buffers becomes a parameter.

    Examples: the transposed weight of a 1x1x1 convolution, weight normalisation, a scale times a weight.
    """

    def call(self, graph: fx.GraphModule) -> bool:
        modified = False
        for node in list(graph.graph.nodes):
            if nodes.aten_name(node) is None or not node.users or _RANDOM in node.target.tags:
                continue
            values = {source: nodes.attribute(graph, source) for source in node.all_input_nodes}
            if not values or any(value is None for value in values.values()):
                continue
            args, kwargs = fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
            with torch.no_grad():
                result = node.target(*args, **kwargs)
            if not isinstance(result, torch.Tensor):
                continue
            constant = nodes.new_attribute(graph, node, "constant", result.detach().clone())
            nodes.copy_place(node, constant)
            node.replace_all_uses_with(constant)
            graph.graph.erase_node(node)
            modified = True
        return modified
