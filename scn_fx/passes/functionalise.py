# SPDX-License-Identifier: Apache-2.0
"""Replace in-place operators (`relu_`, `add_`) by the ones that return a new value."""

from __future__ import annotations

import torch
from torch import fx

from scn_fx.errors import CaptureError
from scn_fx.passes import nodes
from scn_fx.passes.base import GraphPass

__all__ = ["Functionalise"]

_FUNCTIONAL = {
    "relu_": torch.ops.aten.relu.default,
    "add_": torch.ops.aten.add.Tensor,
}
_VIEWS = frozenset(
    {
        "view",
        "reshape",
        "permute",
        "transpose",
        "flatten",
        "unflatten",
        "squeeze",
        "unsqueeze",
        "detach",
        "alias",
    }
    | {"contiguous", "slice", "select", "t"}
)


class Functionalise(GraphPass):
    """`y = relu_(x)` becomes `y = relu(x)`, and everything after it that read x reads y.

    That is what the program computed: after the call, x *is* y. A view of x that other nodes read would have
    changed as well; there the rule refuses, and the verification reports the operator.
    """

    def call(self, graph: fx.GraphModule) -> bool:
        modified = False
        order = {node: i for i, node in enumerate(graph.graph.nodes)}
        for node in list(graph.graph.nodes):
            name = nodes.aten_name(node)
            if name not in _FUNCTIONAL:
                continue
            target = node.args[0]
            if _aliased(target, node):
                self.refuse(node, "it changes a value in place of which other operators read a view")
                continue
            node.target = _FUNCTIONAL[name]
            later = [user for user in target.users if user is not node and order[user] > order[node]]
            for user in later:
                user.replace_input_with(target, node)
            modified = True
        return modified

    def ensures(self, graph: fx.GraphModule) -> None:
        for node in graph.graph.nodes:
            name = nodes.aten_name(node)
            if name is not None and name.endswith("_") and not name.startswith("_"):
                why = "; ".join(nodes.reasons(node)) or "only relu_ and add_ may work in place"
                raise CaptureError(
                    f"{nodes.where(node)} changes a value in place: {why}. Use the operator without the "
                    "underscore in the model."
                )


def _aliased(target: fx.Node, node: fx.Node) -> bool:
    """Whether somebody other than `node` reads `target` through a view, or `target` is a view others read."""
    if any(nodes.aten_name(user) in _VIEWS for user in target.users):
        return True
    return nodes.aten_name(target) in _VIEWS and any(
        len(source.users) > 1 for source in target.all_input_nodes
    )
