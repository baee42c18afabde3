# SPDX-License-Identifier: Apache-2.0
"""Residual addition; its kernels are in `scn_fx.ops.add`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scn_fx.operators.aten import AtenCall, Lowered
from scn_fx.operators.onnx_form import PRECISIONS, OnnxForm, precision_attributes
from scn_fx.operators.spec import Kind, Operand, OperatorSpec, Range, Sites

__all__ = ["ADD", "operands_of_pair", "range_arguments"]


def operands_of_pair(call: AtenCall) -> tuple[Any, Any] | str:
    """Two feature tensors of one width; a text with the reason if they are none."""
    operands = (call.argument("self"), call.argument("other"))
    for which, value in zip(("first", "second"), operands, strict=True):
        reason = call.not_features(value)
        if reason is not None:
            return f"its {which} operand is {reason}"
    channels = [width for width in map(call.channels, operands) if width is not None]
    if len(set(channels)) > 1:
        return f"its operands have {channels[0]} and {channels[1]} channels, which would have to be equal"
    return operands


def _residual(call: AtenCall) -> Lowered | str:
    """The addition of two feature tensors. The operands keep their order: it matters for int8."""
    if call.argument("alpha") != 1:
        return f"the second operand is multiplied by {call.argument('alpha')}"
    found = operands_of_pair(call)
    return found if isinstance(found, str) else Lowered(found)


def range_arguments(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The ranges of two operands, as arguments, from a node's attributes."""
    names = ("input0_dynamic_range", "input1_dynamic_range")
    return {name: attributes[name] for name in names if name in attributes}


_TYPES = {**PRECISIONS, "input0_dynamic_range": "f", "input1_dynamic_range": "f"}

ADD = OperatorSpec(
    name="add",
    schema=(
        '(Tensor a, Tensor b, *, str name, str activation="None", float activation_parameter=0.0, '
        'str activation_name="", str precision="fp32", str output_precision="fp32", '
        "float? input0_dynamic_range=None, float? input1_dynamic_range=None) -> Tensor"
    ),
    operands=(Operand("a", Kind.FEATURES), Operand("b", Kind.FEATURES)),
    gives=(Kind.FEATURES,),
    sites=Sites.SAME,
    ranges=(Range("input0_dynamic_range", "a"), Range("input1_dynamic_range", "b")),
    adds=True,
    aten={"add": _residual},
    advice="Only the sum of two feature tensors on the same sites, of equal width, is supported.",
    suffix="add",
    onnx=OnnxForm(
        op_type="Add",
        doc="Sum of two feature tensors on the same sites.",
        inputs=("a", "b"),
        attributes=precision_attributes,
        arguments=range_arguments,
        precise=True,
        types=_TYPES,
        may_lack=frozenset(_TYPES),
        also_read=("QuantAdd",),
    ),
)
