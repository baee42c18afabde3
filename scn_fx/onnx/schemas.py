# SPDX-License-Identifier: Apache-2.0
"""ONNX operator schemas of the dialect: the dynamo exporter and the checker want them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache

import onnx

# Before any schema of ours: it lists all schemas by bare name when it is first imported, and refuses to load
# where two domains have an Add. Nothing here uses it.
import onnx.reference
from onnx.defs import OpSchema

from scn_fx.onnx.dialect import DOMAIN, DOMAIN_VERSION
from scn_fx.operators.onnx_form import OnnxForm
from scn_fx.operators.spec import Kind, OperatorSpec
from scn_fx.operators.table import onnx_forms

__all__ = ["onnx_schema", "register_schemas"]

_TYPES = {
    "i": OpSchema.AttrType.INT,
    "f": OpSchema.AttrType.FLOAT,
    "s": OpSchema.AttrType.STRING,
    "ints": OpSchema.AttrType.INTS,
    "floats": OpSchema.AttrType.FLOATS,
}
_FLOATS = ["tensor(float16)", "tensor(float)"]
_WEIGHTS = "W"


def _inputs(spec: OperatorSpec, form: OnnxForm) -> Iterator[tuple[OpSchema.FormalParameter, str]]:
    """The inputs with their type variables: layers take float16 and float32 alike, weights float16."""
    operands = [operand for operand in spec.operands if operand.kind not in (Kind.SITES, Kind.MAP)]
    features = 0
    for name, operand in zip(form.inputs, operands, strict=True):
        variable = _WEIGHTS
        if operand.kind is not Kind.PARAMETER:
            features += 1
            variable = "T" if features == 1 else f"T{features}"
        many = OpSchema.FormalParameterOption.Variadic
        option = many if operand.many else OpSchema.FormalParameterOption.Single
        yield (
            OpSchema.FormalParameter(name, variable, param_option=option, is_homogeneous=not operand.many),
            variable,
        )


def _attributes(types: Mapping[str, str], required: bool) -> list[OpSchema.Attribute]:
    return [OpSchema.Attribute(name, _TYPES[kind], required=required) for name, kind in types.items()]


def onnx_schema(spec: OperatorSpec, form: OnnxForm) -> OpSchema:
    """The schema of an operator's node."""
    inputs = list(_inputs(spec, form))
    # The result has a type of its own: a layer chooses what it gives.
    variables = [*dict.fromkeys(variable for _, variable in inputs), "Y"]
    return OpSchema(
        form.op_type,
        DOMAIN,
        DOMAIN_VERSION,
        doc=form.doc,
        inputs=[parameter for parameter, _ in inputs],
        outputs=[OpSchema.FormalParameter("y", "Y")],
        type_constraints=[(v, ["tensor(float16)"] if v == _WEIGHTS else _FLOATS, "") for v in variables],
        attributes=_attributes(form.required, True) + _attributes(form.optional, False),
    )


@cache
def register_schemas() -> None:
    """Register the node types of the table with onnx; once per process, again does nothing."""
    for spec, form in onnx_forms():
        if not onnx.defs.has(form.op_type, max_inclusive_version=DOMAIN_VERSION, domain=DOMAIN):
            onnx.defs.register_schema(onnx_schema(spec, form))
