# SPDX-License-Identifier: Apache-2.0
"""ONNX operator schemas of the dialect: the dynamo exporter and the checker want them."""

from __future__ import annotations

from functools import cache

import onnx

# Before any schema of ours: it lists all schemas by bare name when it is first imported, and refuses to load
# where two domains have an Add. Nothing here uses it.
import onnx.reference
from onnx.defs import OpSchema

from scn_fx.onnx.dialect import DOMAIN, DOMAIN_VERSION

__all__ = ["register_schemas"]

_TYPES = {
    "i": OpSchema.AttrType.INT,
    "f": OpSchema.AttrType.FLOAT,
    "s": OpSchema.AttrType.STRING,
    "ints": OpSchema.AttrType.INTS,
    "floats": OpSchema.AttrType.FLOATS,
}
_FLOATS = ["tensor(float16)", "tensor(float)"]

# op_type -> (documentation, [(input, type variable)], "required attributes", "optional attributes")
_OPERATORS: dict[str, tuple[str, list[tuple[str, str]], str, str]] = {
    "SparseConvolution": (
        "Sparse convolution over the kernel map named by `rulebook`, with bias and activation.",
        [("x", "T"), ("weight", "W"), ("bias", "W")],
        "activation:s kernel_size:ints stride:ints padding:ints dilation:ints subm:i inverse:i "
        "output_bound:i rulebook:s",
        "precision:s output_precision:s input_dynamic_range:f weight_dynamic_ranges:floats ndim:i "
        "transposed:i groups:i in_channels:i out_channels:i input_spatial_shape:ints "
        "output_spatial_shape:ints output_padding:ints input_shape:ints output_shape:ints",
    ),
    "Add": (
        "Sum of two feature tensors on the same sites.",
        [("a", "T"), ("b", "T2")],
        "",
        "precision:s output_precision:s input0_dynamic_range:f input1_dynamic_range:f",
    ),
    "Relu": ("max(x, 0).", [("x", "T")], "", ""),
    "ScatterDense": (
        "Write features to their sites in a dense map of zeros.",
        [("x", "T")],
        "format:s input_spatial_shape:ints output_shape:ints",
        "",
    ),
    "Reshape": ("Reshape to `dims`.", [("x", "T")], "dims:ints", ""),
    "Transpose": ("Permute the axes into the order `dims`.", [("x", "T")], "dims:ints", ""),
}


def _attributes(text: str, required: bool) -> list[OpSchema.Attribute]:
    pairs = (entry.split(":") for entry in text.split())
    return [OpSchema.Attribute(name, _TYPES[kind], required=required) for name, kind in pairs]


def _schema(op_type: str) -> OpSchema:
    doc, inputs, required, optional = _OPERATORS[op_type]
    # The result has a type of its own: layers take float16 and float32 alike and choose what they give.
    variables = [*dict.fromkeys(variable for _, variable in inputs), "Y"]
    return OpSchema(
        op_type,
        DOMAIN,
        DOMAIN_VERSION,
        doc=doc,
        inputs=[OpSchema.FormalParameter(name, variable) for name, variable in inputs],
        outputs=[OpSchema.FormalParameter("y", "Y")],
        type_constraints=[(v, ["tensor(float16)"] if v == "W" else _FLOATS, "") for v in variables],
        attributes=_attributes(required, True) + _attributes(optional, False),
    )


@cache
def register_schemas() -> None:
    """Register the six operators of the dialect with onnx; once per process, again does nothing."""
    for op_type in _OPERATORS:
        if not onnx.defs.has(op_type, max_inclusive_version=DOMAIN_VERSION, domain=DOMAIN):
            onnx.defs.register_schema(_schema(op_type))
