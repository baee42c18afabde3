# SPDX-License-Identifier: Apache-2.0
"""Turn aten operators on features into those of the table."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

import scn_fx.ops  # noqa: F401 - registers the operators
from scn_fx.graph import operator_spec
from scn_fx.operators.aten import Lowered
from scn_fx.operators.dialects import LIBSPCONV
from scn_fx.operators.spec import Kind, OperatorSpec
from scn_fx.operators.table import OPERATORS
from scn_fx.passes import nodes
from scn_fx.passes.base import GraphPass

__all__ = ["LowerOperators"]


class LowerOperators(GraphPass):
    """A call of an aten operator becomes the operator of the table whose rule takes it.

    `aten.relu(x)` becomes `scn_fx.relu`, as do the calls that compute the same, NaN included; `aten.add(a,
    b)` of two feature tensors becomes `scn_fx.add`, its operands in their order. What the dialect lacks and
    `LowerChannelMaps` can write with other operators is left to that pass.
    """

    def __init__(self, dialect: str = LIBSPCONV) -> None:
        super().__init__()
        self._dialect = dialect

    def call(self, graph: fx.GraphModule) -> bool:
        modified = False
        for node in graph.graph.nodes:
            name = nodes.aten_name(node)
            reason = None
            for spec in OPERATORS.values() if name is not None else ():
                rule = spec.aten.get(str(name)) if spec.belongs(self._dialect) else None
                found = None if rule is None else rule(_Call(node))
                if isinstance(found, Lowered):
                    _replace(node, spec, found)
                    modified, reason = True, None
                    break
                reason = reason or found
            if reason is not None:
                self.refuse(node, reason)
        return modified


def _replace(node: fx.Node, spec: OperatorSpec, found: Lowered) -> None:
    node.target = getattr(torch.ops.scn_fx, spec.name).default
    node.args, node.kwargs = found.operands, {"name": "", **found.keywords}


class _Call:
    """A `scn_fx.operators.aten.AtenCall` of a torch.fx node."""

    def __init__(self, node: fx.Node) -> None:
        self._node = node

    def argument(self, name: str) -> Any:
        return nodes.argument(self._node, name)

    def on_dense_map(self, value: Any) -> bool:
        return gives_dense_map(value)

    def not_features(self, value: Any) -> str | None:
        if not isinstance(value, fx.Node):
            return f"the number {value}"
        return None if nodes.sites(value) is not None else f"not a value per site, but {nodes.where(value)}"

    def numbers(self, value: Any) -> list[float] | None:
        owner = self._node.graph.owning_module
        found = nodes.attribute(owner, value) if owner is not None else None
        return None if found is None else [float(each) for each in found.detach().float().flatten().tolist()]

    def channels(self, value: Any) -> int | None:
        shape = getattr(value.meta.get("val"), "shape", None)
        return None if shape is None else shape[-1]


def gives_dense_map(value: object) -> bool:
    """Whether a value is a dense map, or a rearranged one."""
    spec = operator_spec(value)
    return spec is not None and Kind.DENSE in spec.gives
