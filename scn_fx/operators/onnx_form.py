# SPDX-License-Identifier: Apache-2.0
"""How an operator is written in ONNX files: its node's type, inputs and attributes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from scn_fx.operators.dialects import DIALECTS

__all__ = ["PRECISIONS", "Attribute", "Attributes", "OnnxForm", "half_result", "precision_attributes"]

Attribute = int | float | str | list[int] | list[float]
Attributes = dict[str, Attribute]
"""An attribute's ONNX type follows from its Python type: int (i), float (f), str (s), list of int (ints) and
list of float (floats). libspconv reads the types literally, so a flag is an int here and never a bool."""

PRECISIONS: Mapping[str, str] = {"precision": "s", "output_precision": "s"}
"""The attributes that say a node's precision."""


def same_shape(operands: Sequence[Any], attributes: Mapping[str, Any]) -> Sequence[int]:
    """The result has the shape of the first operand."""
    shape: Sequence[int] = operands[0].shape
    return shape


def no_attributes(layer: Any) -> Attributes:
    """No attributes."""
    return {}


@dataclass(frozen=True, kw_only=True)
class OnnxForm:
    """One node type.

    Attributes:
        op_type: its ONNX type.
        doc: one sentence for its schema.
        inputs: names of the inputs: of the operands that are features, dense maps or parameters, in order.
            Sites and kernel maps are implicit in files.
        attributes: from a `scn_fx.graph.Layer` to the node's attributes.
        types: ONNX type of every attribute, by name, in the order in which they are written.
        may_lack: names of those that a node may leave out.
        arguments: from a node's attributes, as a file has them, back to the operator's keyword arguments.
        shape: shape of the result, from the operands (tensors, in the order of the operator's schema) and
            attributes. Raises for operands that do not fit.
        precise: whether the result's dtype follows from the output precision rather than the operand.
        also_read: other types of files that mean the same and are never written.
        dialects: those that have it.
    """

    op_type: str
    doc: str
    inputs: tuple[str, ...] = ("x",)
    attributes: Callable[[Any], Attributes] = no_attributes
    types: Mapping[str, str] = field(default_factory=dict)
    may_lack: frozenset[str] = frozenset()
    arguments: Callable[[Mapping[str, Any]], dict[str, Any]] = lambda attributes: {}
    shape: Callable[[Sequence[Any], Mapping[str, Any]], Sequence[int]] = same_shape
    precise: bool = False
    also_read: tuple[str, ...] = ()
    dialects: frozenset[str] = DIALECTS

    @property
    def required(self) -> dict[str, str]:
        """ONNX type, by name, of the attributes that every node has."""
        return {name: kind for name, kind in self.types.items() if name not in self.may_lack}

    @property
    def optional(self) -> dict[str, str]:
        """The same of those that a node may leave out."""
        return {name: kind for name, kind in self.types.items() if name in self.may_lack}


def precision_attributes(layer: Any) -> Attributes:
    """Precisions and ranges of a layer; a float32 node leaves them out, so that the engine chooses."""
    if layer.precision == "fp32":
        return {}
    found: Attributes = {"precision": layer.precision, "output_precision": layer.output_precision}
    for each in layer.spec.ranges:
        value = layer.argument(each.attribute)
        if value is not None:
            found[each.attribute] = (
                [float(amax) for amax in value] if isinstance(value, list | tuple) else float(value)
            )
    return found


def half_result(attributes: Mapping[str, Any]) -> bool:
    """Whether a node hands on float16; unrounded values are carried in float32."""
    return attributes.get("output_precision") == "fp16"
