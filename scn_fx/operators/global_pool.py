# SPDX-License-Identifier: Apache-2.0
"""Pooling over all sites of a batch entry; its kernels are in `scn_fx.ops.global_pool`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scn_fx.operators.dialects import SCN_FX
from scn_fx.operators.onnx_form import Attributes, OnnxForm
from scn_fx.operators.spec import Kind, Operand, OperatorSpec, Sites

__all__ = ["CHUNK", "GLOBAL_POOL"]

CHUNK = 256
"""Rows that are added up one after another, before their sums are; csrc/core/pooling.h has the same."""


def _attributes(layer: Any) -> Attributes:
    return {"kind": layer.argument("kind"), "output_shape": [layer.batch_size, layer.input_channels]}


def _arguments(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {"kind": attributes["kind"], "batch_size": attributes["output_shape"][0]}


GLOBAL_POOL = OperatorSpec(
    name="global_pool",
    schema="(Tensor features, Tensor indices, *, str name, str kind, int batch_size) -> Tensor",
    operands=(Operand("features", Kind.FEATURES), Operand("indices", Kind.SITES)),
    gives=(Kind.DENSE,),
    sites=Sites.DENSE,
    suffix="global_pool",
    modules=("SparseGlobalMaxPool", "SparseGlobalAvgPool", "SparseGlobalMaxOrAvgPool"),
    onnx=OnnxForm(
        op_type="SparseGlobalPool",
        doc="The largest, mean or sum of all sites of each batch entry.",
        attributes=_attributes,
        arguments=_arguments,
        types={"kind": "s", "output_shape": "ints"},
        shape=lambda operands, attributes: list(attributes["output_shape"]),
        dialects=frozenset({SCN_FX}),
    ),
)
