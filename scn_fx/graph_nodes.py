# SPDX-License-Identifier: Apache-2.0
"""What a torch.fx node of a graph is and has: its operator, arguments, operands, kernel map."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx

from scn_fx.operators.spec import Kind, OperatorSpec
from scn_fx.operators.table import OPERATORS

__all__ = [
    "NAMESPACE",
    "argument",
    "map_source",
    "operands",
    "operator_name",
    "operator_spec",
    "replace_keywords",
    "values_of",
]

NAMESPACE = "scn_fx"
"""Namespace of the operators, and key of the metadata in `graph.meta`."""


def operator_name(node: object) -> str | None:
    """Name of the scn-fx operator that a node calls ("convolution", "subm_map", …), or None."""
    if not isinstance(node, fx.Node) or not isinstance(node.target, torch._ops.OpOverload):
        return None
    namespace, _, name = node.target.name().partition("::")
    return name.partition(".")[0] if namespace == NAMESPACE else None


def operator_spec(node: object) -> OperatorSpec | None:
    """What the table says of the operator that a node calls; None for any other node."""
    return OPERATORS.get(operator_name(node) or "")


def argument(node: fx.Node, name: str) -> Any:
    """An argument by its name in the schema: as the node has it, or else the schema's default.

    Raises KeyError if the operator has no such argument or the node does not give it.
    """
    if name in node.kwargs:
        return node.kwargs[name]
    for position, declared in enumerate(node.target._schema.arguments):  # type: ignore[union-attr]
        if declared.name == name:
            if position < len(node.args):
                return node.args[position]
            if declared.has_default_value():
                return declared.default_value
    raise KeyError(f"{node.target} has no argument {name!r}")


def operands(node: fx.Node, *kinds: Kind) -> tuple[Any, ...]:
    """The operands of a node that are of these kinds, in order; lists are flattened, absent ones left out."""
    spec = operator_spec(node)
    found: list[Any] = []
    for operand in () if spec is None else spec.operands:
        if operand.kind in kinds:
            found += values_of(argument(node, operand.name))
    return tuple(found)


def values_of(value: Any) -> list[Any]:
    """A value, the values of a list, or nothing for None."""
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def map_source(value: object) -> fx.Node | None:
    """The node of the operator that makes a kernel map, from the map or from an item of several results."""
    if not isinstance(value, fx.Node):
        return None
    item = None
    if value.target is operator.getitem:
        value, item = value.args
    spec = operator_spec(value)
    made = spec is not None and spec.map is not None and spec.map.item == item
    return value if made and isinstance(value, fx.Node) else None


def replace_keywords(node: fx.Node, changes: Mapping[str, Any], what: str, hint: str = "") -> None:
    """Set keyword arguments of a node; AttributeError, about `what`, for one that its schema lacks."""
    known = {a.name for a in node.target._schema.arguments if a.kwarg_only}  # type: ignore[union-attr]
    for name in changes:
        if name not in known:
            raise AttributeError(f"{what} has no keyword argument {name!r}; it has {sorted(known)}.{hint}")
    node.kwargs = {**node.kwargs, **changes}
