# SPDX-License-Identifier: Apache-2.0
"""Fuse an activation into the convolution or residual addition before it."""

from __future__ import annotations

from typing import Any

from torch import fx

from scn_fx.graph import argument, operator_spec
from scn_fx.operators.activations import ACTIVATIONS, Activation
from scn_fx.passes import nodes
from scn_fx.passes.base import GraphPass
from scn_fx.passes.name_nodes import own_name

__all__ = ["FuseActivation"]


class FuseActivation(GraphPass):
    """`relu(convolution(x))` and `relu(add(a, b))` become one node with activation "ReLU".

    It applies where the activation is the only reader: any other reader needs the value before it. A second
    ReLU behind the first changes nothing.
    """

    def call(self, graph: fx.GraphModule) -> bool:
        modified = False
        for node in list(graph.graph.nodes):
            spec = operator_spec(node)
            if spec is None or spec.activation is None:
                continue
            source = node.args[0]
            reason = _not_fusible(source, node, spec.activation)
            if reason is not None:
                self.refuse(node, reason)
                continue
            source.kwargs = {**source.kwargs, **_fused(source, node, spec.activation)}
            node.replace_all_uses_with(source)
            graph.graph.erase_node(node)
            modified = True
        return modified


def _fused(source: fx.Node, node: fx.Node, activation: Activation) -> dict[str, Any]:
    parameter = argument(node, "activation_parameter") if activation.parameter is not None else 0.0
    fused: dict[str, Any] = {"activation": activation.name, **activation.keywords(parameter)}
    if operator_spec(source).adds:  # type: ignore[union-attr]
        fused["activation_name"] = own_name(node)
    return fused


def _not_fusible(source: object, node: fx.Node, activation: Activation) -> str | None:
    spec = operator_spec(source)
    if not isinstance(source, fx.Node) or spec is None or not spec.fuses:
        what = nodes.where(source) if isinstance(source, fx.Node) else repr(source)
        return f"it follows neither a convolution nor an addition, but {what}; it stays a node of its own"
    there = ACTIVATIONS[argument(source, "activation")]
    if there.operator and not (there.rectifies and activation.rectifies):
        return f"{nodes.where(source)} before it has an activation already; it stays a node of its own"
    others = [user for user in source.users if user is not node]
    if others and not there.operator:
        readers = ", ".join(nodes.where(user) for user in others)
        return f"the value before the activation is also read by {readers}; it stays a node of its own"
    return None
