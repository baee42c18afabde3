# SPDX-License-Identifier: Apache-2.0
"""Concatenation of features along their channels; its kernels are in `scn_fx.ops.concat`.

Only the project's own dialect has it: for libspconv, `scn_fx.passes.channel_maps` takes it apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from scn_fx.operators.aten import AtenCall, Lowered
from scn_fx.operators.dialects import SCN_FX
from scn_fx.operators.onnx_form import OnnxForm
from scn_fx.operators.spec import Kind, Operand, OperatorSpec, Sites

__all__ = ["CONCAT"]


def _joined(call: AtenCall) -> Lowered | str:
    """Feature tensors side by side."""
    values = call.argument("tensors")
    if call.argument("dim") not in (1, -1):
        return f"it joins along axis {call.argument('dim')}"
    for position, value in enumerate(values):
        reason = call.not_features(value)
        if reason is not None:
            return f"its value {position} is {reason}"
    return Lowered((list(values),))


def _shape(operands: Sequence[Any], attributes: Mapping[str, Any]) -> list[int]:
    (inputs,) = operands
    return [inputs[0].shape[0], sum(each.shape[1] for each in inputs)]


CONCAT = OperatorSpec(
    name="concat",
    schema="(Tensor[] inputs, *, str name) -> Tensor",
    operands=(Operand("inputs", Kind.FEATURES, many=True),),
    gives=(Kind.FEATURES,),
    sites=Sites.SAME,
    joins=True,
    avoidable=True,
    aten={"cat": _joined},
    advice="Features of the same sites can be joined along their channels (dim=1), rows of sites cannot.",
    suffix="concat",
    onnx=OnnxForm(
        op_type="Concat",
        doc="Features of the same sites side by side, in the order of the inputs.",
        inputs=("x",),
        attributes=lambda layer: {"axis": 1},
        types={"axis": "i"},
        shape=_shape,
        dialects=frozenset({SCN_FX}),
    ),
)
