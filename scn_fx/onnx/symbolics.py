# SPDX-License-Identifier: Apache-2.0
"""Symbolic functions of the operators for the TorchScript exporter (``torch.onnx.export(dynamo=False)``)."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch

from scn_fx.errors import ExportError
from scn_fx.onnx.dialect import (
    DOMAIN,
    OPSET,
    Attributes,
    Convolution,
    add_attributes,
    check_split,
    dims_attributes,
    scatter_attributes,
)

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


def _arguments(operator: str, operands: tuple[Value, ...], tensors: int) -> dict[str, Any]:
    """Keyword arguments of ``scn_fx::operator`` by name: the tracer passes all of them by position."""
    schema = getattr(torch.ops.scn_fx, operator).default._schema
    names = [argument.name for argument in schema.arguments[tensors:]]
    return {name: _constant(value) for name, value in zip(names, operands, strict=True)}


def _channels(g: Context, name: str) -> int:
    """Channels of the feature operand, as traced: torch can lose the sizes of a foreign domain's results."""
    sizes = next(iter(g.original_node.inputs())).type().varyingSizes()
    if sizes is None or len(sizes) < 2 or sizes[1] is None:
        raise ExportError(
            f"Layer {name!r}: expected a fixed number of channels, got features of sizes {sizes}."
        )
    return int(sizes[1])


def _emit(g: Context, name: str, op_type: str, inputs: tuple[Value, ...], attributes: Attributes) -> Value:
    """One node of the dialect; torch reads an attribute's ONNX type from the suffix of its keyword."""
    typed: dict[str, Any] = {"onnx_name_s": name}
    for key, value in attributes.items():
        sample = value[0] if isinstance(value, list) else value
        suffix = {int: "i", float: "f", str: "s"}[type(sample)]
        typed[f"{key}_{suffix}"] = value
    return g.op(f"{DOMAIN}::{op_type}", *inputs, **typed)


def _typed(g: Context, value: Value, dynamic: bool) -> Value:
    """Give `value` the traced type: torch cannot infer one for operators of a foreign domain.

    `dynamic`: axis 0 counts sites, whose number is not fixed.
    """
    traced = g.original_node.output().type()
    sizes = list(traced.varyingSizes())
    value.setType(traced.with_sizes([None, *sizes[1:]]) if dynamic else traced)
    return value


def _convolution(g: Context, *operands: Value) -> Value:
    features, weight, bias, _ = operands[:4]
    convolution = Convolution(**_arguments("convolution", operands[4:], 4))
    out_channels = weight.type().sizes()[0]
    attributes = convolution.attributes(_channels(g, convolution.name), out_channels)
    inputs = (features, weight, bias)
    return _typed(g, _emit(g, convolution.name, "SparseConvolution", inputs, attributes), dynamic=True)


def _add(g: Context, *operands: Value) -> Value:
    given = _arguments("add", operands[2:], 2)
    check_split(given["name"], given["activation"])
    ranges = (given["input0_dynamic_range"], given["input1_dynamic_range"])
    attributes = add_attributes(given["precision"], given["output_precision"], *ranges)
    return _typed(g, _emit(g, given["name"], "Add", operands[:2], attributes), dynamic=True)


def _relu(g: Context, *operands: Value) -> Value:
    name = _arguments("relu", operands[1:], 1)["name"]
    sparse = g.original_node.output().type().dim() == 2
    return _typed(g, _emit(g, name, "Relu", operands[:1], {}), dynamic=sparse)


def _scatter_dense(g: Context, *operands: Value) -> Value:
    given = _arguments("scatter_dense", operands[2:], 2)
    channels = _channels(g, given["name"])
    attributes = scatter_attributes(given["format"], given["batch_size"], channels, given["spatial_shape"])
    return _typed(g, _emit(g, given["name"], "ScatterDense", operands[:1], attributes), dynamic=False)


def _with_dims(op_type: str) -> Callable[..., Value]:
    def symbolic(g: Context, *operands: Value) -> Value:
        given = _arguments(op_type.lower(), operands[1:], 1)
        attributes = dims_attributes(given["name"], given["dims"])
        return _typed(g, _emit(g, given["name"], op_type, operands[:1], attributes), dynamic=False)

    return symbolic


def _implicit(outputs: int) -> Callable[..., Any]:
    """Indices and kernel maps are implicit in the dialect: the first operand stands for them, unread."""

    def symbolic(g: Context, *operands: Value) -> Any:
        return operands[0] if outputs == 1 else (operands[0],) * outputs

    return symbolic


@cache
def register_symbolics() -> None:
    """Register the symbolic functions with torch.onnx; once per process, again does nothing."""
    table = {
        "convolution": _convolution,
        "add": _add,
        "relu": _relu,
        "scatter_dense": _scatter_dense,
        "reshape": _with_dims("Reshape"),
        "transpose": _with_dims("Transpose"),
        "subm_map": _implicit(1),
        "conv_map": _implicit(2),
        "inverse_map": _implicit(1),
        "input_sites": _implicit(1),
    }
    for operator, symbolic in table.items():
        torch.onnx.register_custom_op_symbolic(f"scn_fx::{operator}", symbolic, OPSET)
