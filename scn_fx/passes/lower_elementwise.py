# SPDX-License-Identifier: Apache-2.0
"""Turn aten ReLU and addition of features into the operators of the dialect."""

from __future__ import annotations

import torch
from torch import fx

import scn_fx.ops  # noqa: F401 - registers the operators
from scn_fx.passes import nodes
from scn_fx.passes.base import GraphPass

__all__ = ["LowerElementwise"]


class LowerElementwise(GraphPass):
    """`aten.relu(x)` becomes `scn_fx.relu`, `aten.add(a, b)` of two feature tensors becomes `scn_fx.add`.

    The operands of an addition keep their order: in ``out.features + identity.features`` the branch is the
    first.
    """

    def call(self, graph: fx.GraphModule) -> bool:
        modified = False
        for node in graph.graph.nodes:
            name = nodes.aten_name(node)
            if name == "relu":
                node.target = torch.ops.scn_fx.relu.default
                node.args, node.kwargs = (node.args[0],), {"name": ""}
                modified = True
            elif name == "add":
                reason = _not_residual(node)
                if reason is None:
                    node.target = torch.ops.scn_fx.add.default
                    node.args, node.kwargs = node.args[:2], {"name": ""}
                    modified = True
                else:
                    self.refuse(node, reason)
        return modified


def _not_residual(node: fx.Node) -> str | None:
    """Why an `aten.add` is not the addition of two feature tensors; None if it is."""
    if nodes.argument(node, "alpha") != 1:
        return f"the second operand is multiplied by {nodes.argument(node, 'alpha')}"
    for which, operand in zip(("first", "second"), node.args[:2], strict=True):
        if not isinstance(operand, fx.Node):
            return f"its {which} operand is the number {operand}"
        if nodes.sites(operand) is None:
            return f"its {which} operand is not a value per site, but {nodes.where(operand)}"
    return None
