# SPDX-License-Identifier: Apache-2.0
"""Turn aten ReLU and addition of features into the operators of the dialect."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import fx

import scn_fx.ops  # noqa: F401 - registers the operators
from scn_fx.graph import operator_name
from scn_fx.passes import nodes
from scn_fx.passes.base import GraphPass

__all__ = ["LowerElementwise"]

_DENSE = frozenset({"scatter_dense", "reshape", "transpose"})


class LowerElementwise(GraphPass):
    """`aten.relu(x)` becomes `scn_fx.relu`, `aten.add(a, b)` of two feature tensors becomes `scn_fx.add`.

    ReLU has other names that compute the same, NaN included: `clamp(x, min=0)`, `hardtanh(x, 0, inf)`,
    `leaky_relu(x, 0)`, `threshold(x, 0, 0)`. The operands of an addition keep their order: in
    ``out.features + identity.features`` the branch is the first.
    """

    def call(self, graph: fx.GraphModule) -> bool:
        modified = False
        for node in graph.graph.nodes:
            if _is_relu(node) and operator_name(node.args[0]) in _DENSE:
                self.refuse(
                    node, "it acts on the dense map; on the features before dense() it gives the same"
                )
            elif _is_relu(node):
                node.target = torch.ops.scn_fx.relu.default
                node.args, node.kwargs = (node.args[0],), {"name": ""}
                modified = True
            elif nodes.aten_name(node) == "add":
                reason = _not_residual(node)
                if reason is None:
                    node.target = torch.ops.scn_fx.add.default
                    node.args, node.kwargs = node.args[:2], {"name": ""}
                    modified = True
                else:
                    self.refuse(node, reason)
        return modified


def _is_relu(node: fx.Node) -> bool:
    """Whether an operator computes max(x, 0) for every x."""

    def given(name: str) -> Any:
        return nodes.argument(node, name)

    name = nodes.aten_name(node)
    if name == "relu":
        return True
    if name in ("clamp", "clip"):
        return _is(given("min"), 0) and (given("max") is None or _is(given("max"), math.inf))
    if name == "clamp_min":
        return _is(given("min"), 0)
    if name == "hardtanh":
        return _is(given("min_val"), 0) and _is(given("max_val"), math.inf)
    if name == "leaky_relu":
        return _is(given("negative_slope"), 0)
    if name == "threshold":
        return _is(given("threshold"), 0) and _is(given("value"), 0)
    return False


def _is(value: Any, number: float) -> bool:
    return isinstance(value, int | float) and value == number


def _not_residual(node: fx.Node) -> str | None:
    """Why an `aten.add` is not the addition of two feature tensors; None if it is."""
    if nodes.argument(node, "alpha") != 1:
        return f"the second operand is multiplied by {nodes.argument(node, 'alpha')}"
    shapes = []
    for which, operand in zip(("first", "second"), node.args[:2], strict=True):
        if not isinstance(operand, fx.Node):
            return f"its {which} operand is the number {operand}"
        if nodes.sites(operand) is None:
            return f"its {which} operand is not a value per site, but {nodes.where(operand)}"
        shapes.append(getattr(operand.meta.get("val"), "shape", None))
    channels = [shape[-1] for shape in shapes if shape is not None]
    if len(set(channels)) > 1:
        return f"its operands have {channels[0]} and {channels[1]} channels, which would have to be equal"
    return None
