# SPDX-License-Identifier: Apache-2.0
"""Operators that forwards choose, sort or merge rows with, for messages."""

from __future__ import annotations

from torch import fx

from scn_fx.graph import operator_spec
from scn_fx.operators.spec import Sites
from scn_fx.passes import nodes
from scn_fx.passes.module_marks import module_before

__all__ = ["ADVICE", "chooses", "row_choice"]

_CHOICES = frozenset(
    {
        "_unique", "_unique2", "argsort", "gather", "index", "index_add", "index_put", "index_select",
        "masked_select", "nonzero", "scatter", "scatter_add", "scatter_reduce", "sort", "topk",
        "unique_consecutive", "unique_dim",
    }
)  # fmt: skip

ADVICE = (
    "The sites of a graph follow from the frame's by its layers alone: rows cannot be chosen, sorted, "
    "gathered or merged."
)


def chooses(node: fx.Node) -> bool:
    """Whether an operator chooses among rows, and not among columns as `x[:, [0, 2]]` does."""
    name, chosen = nodes.aten_name(node), node.args[1] if len(node.args) > 1 else None
    if name == "index":
        return not (isinstance(chosen, list | tuple) and chosen[0] is None)
    if name == "index_select":
        return isinstance(chosen, int) and chosen == 0
    return name in _CHOICES


def row_choice(node: fx.Node) -> fx.Node | None:
    """The choice of rows that a node takes part in, as the comparison of a mask does; None if there is none.

    It has the same layers before it, so that it says more about the node and the way out is the same.
    """
    known, pending = {node}, [node]
    for each in pending:  # grows while it is walked
        if chooses(each):
            return each
        for user in each.users:
            computed = user.op == "call_function" and not _of_layers(user)
            if user not in known and computed and module_before(user) == module_before(node):
                known.add(user)
                pending.append(user)
    return None


def _of_layers(node: fx.Node) -> bool:
    spec = operator_spec(node)
    return spec is not None and (bool(spec.map) or spec.sites is Sites.MAP)
