# SPDX-License-Identifier: Apache-2.0
"""Which part of a value its readers use: an Add before a ReLU does not need what the ReLU removes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scn_fx.graph import operator_spec
from scn_fx.quant.ranges import quantizable

if TYPE_CHECKING:
    import torch
    from torch.fx import GraphModule, Node

__all__ = ["effective_operands", "rectified_adds"]


def rectified_adds(graph: GraphModule) -> dict[Node, str]:
    """The Adds whose sum is seen through a ReLU alone, fused or unfused, and their names."""
    return {
        layer.node: layer.name
        for layer in quantizable(graph)
        if layer.spec.adds and (layer.fused.rectifies or _only_relus_read(layer.node))
    }


def _only_relus_read(node: Node) -> bool:
    return bool(node.users) and all(
        (spec := operator_spec(user)) is not None
        and spec.activation is not None
        and spec.activation.rectifies
        for user in node.users
    )


def effective_operands(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The part of each operand that max(a + b, 0) depends on: max(a, -max(b, 0)) and max(b, -max(a, 0)).

    max(a + b, 0) is the same for the operands as for these parts, also for both parts together.
    """
    return a.maximum(-b.clamp_min(0)), b.maximum(-a.clamp_min(0))
