# SPDX-License-Identifier: Apache-2.0
"""Product of two feature tensors, as gates have it; its kernels are in `scn_fx.ops.multiply`."""

from __future__ import annotations

from scn_fx.operators.add import operands_of_pair, range_arguments
from scn_fx.operators.aten import AtenCall, Lowered
from scn_fx.operators.dialects import SCN_FX
from scn_fx.operators.onnx_form import PRECISIONS, OnnxForm, precision_attributes
from scn_fx.operators.spec import Kind, Operand, OperatorSpec, Range, Sites

__all__ = ["MULTIPLY"]


def _product(call: AtenCall) -> Lowered | str:
    """Two feature tensors of one width, in their order."""
    found = operands_of_pair(call)
    return found if isinstance(found, str) else Lowered(found)


_TYPES = {**PRECISIONS, "input0_dynamic_range": "f", "input1_dynamic_range": "f"}

MULTIPLY = OperatorSpec(
    name="multiply",
    schema=(
        '(Tensor a, Tensor b, *, str name, str precision="fp32", str output_precision="fp32", '
        "float? input0_dynamic_range=None, float? input1_dynamic_range=None) -> Tensor"
    ),
    operands=(Operand("a", Kind.FEATURES), Operand("b", Kind.FEATURES)),
    gives=(Kind.FEATURES,),
    sites=Sites.SAME,
    ranges=(Range("input0_dynamic_range", "a"), Range("input1_dynamic_range", "b")),
    aten={"mul": _product},
    advice="Only the product of two feature tensors on the same sites, of equal width, is supported.",
    suffix="mul",
    onnx=OnnxForm(
        op_type="Mul",
        doc="Product of two feature tensors on the same sites.",
        inputs=("a", "b"),
        attributes=precision_attributes,
        arguments=range_arguments,
        precise=True,
        types=_TYPES,
        may_lack=frozenset(_TYPES),
        dialects=frozenset({SCN_FX}),
    ),
)
