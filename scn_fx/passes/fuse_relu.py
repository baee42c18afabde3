# SPDX-License-Identifier: Apache-2.0
"""Fuse a ReLU into the convolution or residual addition before it."""

from __future__ import annotations

from torch import fx

from scn_fx.graph import operator_name
from scn_fx.passes import nodes
from scn_fx.passes.base import GraphPass
from scn_fx.passes.name_nodes import activation_name

__all__ = ["FuseRelu"]


class FuseRelu(GraphPass):
    """`relu(convolution(x))` and `relu(add(a, b))` become one node with activation "ReLU".

    It applies where the ReLU is the only reader: any other reader needs the value before the activation.
    """

    def call(self, graph: fx.GraphModule) -> bool:
        modified = False
        for node in list(graph.graph.nodes):
            if operator_name(node) != "relu":
                continue
            source = node.args[0]
            reason = _not_fusible(source, node)
            if reason is not None:
                self.refuse(node, reason)
                continue
            fused = {"activation": "ReLU"}
            if operator_name(source) == "add":
                fused["activation_name"] = activation_name(node)
            source.kwargs = {**source.kwargs, **fused}
            node.replace_all_uses_with(source)
            graph.graph.erase_node(node)
            modified = True
        return modified


def _not_fusible(source: object, relu: fx.Node) -> str | None:
    if not isinstance(source, fx.Node) or operator_name(source) not in ("convolution", "add"):
        what = nodes.where(source) if isinstance(source, fx.Node) else repr(source)
        return f"it follows neither a convolution nor an addition, but {what}; it stays a node of its own"
    others = [user for user in source.users if user is not relu]
    if others and source.kwargs.get("activation", "None") != "ReLU":
        readers = ", ".join(nodes.where(user) for user in others)
        return f"the value before the activation is also read by {readers}; it stays a node of its own"
    return None
