# SPDX-License-Identifier: Apache-2.0
"""Symbolic functions of the operators for the TorchScript exporter (``torch.onnx.export(dynamo=False)``)."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch

from scn_fx.errors import ExportError
from scn_fx.onnx.dialect import DOMAIN, NAMESPACE, OPSET, DialectOperator, dialect_operators, edge_name
from scn_fx.operators.dialects import SCN_FX
from scn_fx.operators.spec import OperatorSpec
from scn_fx.operators.table import OPERATORS

__all__ = ["register_symbolics"]

# torch's own types for these (GraphContext, torch._C.Value) are private.
Context = Any
Value = Any
"""A value of the TorchScript graph."""


def _constant(value: Value) -> Any:
    """The Python value of a constant operand; None for an absent optional one."""
    node = value.node()
    if node.kind() == "prim::ListConstruct":
        return [_constant(item) for item in node.inputs()]
    if node.mustBeNone():
        return None
    if node.kind() not in ("prim::Constant", "onnx::Constant"):
        raise ExportError(
            f"Expected a constant argument, got a result of {node.kind()}. Do not script the view."
        )
    is_prim = node.kind() == "prim::Constant"
    found = value.toIValue() if is_prim else getattr(node, node.kindOf("value"))("value")
    return found.tolist() if isinstance(found, torch.Tensor) else found


def _arguments(operator: DialectOperator, values: tuple[Value, ...]) -> tuple[list[Any], dict[str, Any]]:
    """Operands and keyword arguments: the tracer passes all of them by position."""
    count = len(operator.spec.operands)
    names = [argument.name for argument in operator.overload._schema.arguments[count:]]
    operands = [
        list(value.node().inputs()) if operand.many else value
        for operand, value in zip(operator.spec.operands, values[:count], strict=True)
    ]
    return operands, {n: _constant(value) for n, value in zip(names, values[count:], strict=True)}


def _emit(g: Context, operator: DialectOperator, inputs: list[Value], keywords: dict[str, Any]) -> Value:
    """One node of the dialect; torch reads an attribute's ONNX type from the suffix of its keyword."""
    typed: dict[str, Any] = {"onnx_name_s": keywords["name"]}
    for key, value in operator.attributes(keywords).items():
        typed[f"{key}_{operator.form.types[key][0]}"] = value  # "ints" has the suffix of "i"
    return g.op(f"{DOMAIN}::{operator.form.op_type}", *inputs, **typed)


def _typed(g: Context, value: Value, of_sites: bool, edge: str) -> Value:
    """Give `value` the traced type: torch cannot infer one for operators of a foreign domain.

    `of_sites`: axis 0 counts sites, whose number is not fixed. `edge` is its name: the exporter takes that of
    the traced value.
    """
    output = g.original_node.output()
    output.setDebugName(edge)
    traced = output.type()
    sizes = list(traced.varyingSizes())
    value.setType(traced.with_sizes([None, *sizes[1:]]) if of_sites and len(sizes) == 2 else traced)
    return value


def _node(operator: DialectOperator) -> Callable[..., Value]:
    def symbolic(g: Context, *values: Value) -> Value:
        operands, keywords = _arguments(operator, values)
        made = _emit(g, operator, operator.written(operands), keywords)
        return _typed(g, made, operator.of_sites, edge_name(keywords["name"]))

    return symbolic


def _implicit(spec: OperatorSpec) -> Callable[..., Any]:
    """Indices and kernel maps are implicit in the dialect: the first operand stands for them, unread."""
    outputs = len(spec.gives)

    def symbolic(g: Context, *operands: Value) -> Any:
        return operands[0] if outputs == 1 else (operands[0],) * outputs

    return symbolic


@cache
def register_symbolics() -> None:
    """Register the symbolic functions with torch.onnx; once per process, again does nothing."""
    for name, operator in dialect_operators(SCN_FX).items():  # which has those of every dialect
        torch.onnx.register_custom_op_symbolic(f"{NAMESPACE}::{name}", _node(operator), OPSET)
    for spec in OPERATORS.values():
        if not spec.layer:
            torch.onnx.register_custom_op_symbolic(f"scn_fx::{spec.name}", _implicit(spec), OPSET)
