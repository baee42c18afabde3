# SPDX-License-Identifier: Apache-2.0
"""Pooling over a kernel map; its kernels are in `scn_fx.ops.pool`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from scn_fx.operators.dialects import SCN_FX
from scn_fx.operators.maps import MAP_TYPES, map_attributes
from scn_fx.operators.onnx_form import OnnxForm
from scn_fx.operators.spec import Kind, Operand, OperatorSpec, Sites

__all__ = ["POOL", "POOLINGS"]

POOLINGS = ("max", "mean", "sum")
"""What a pooling layer makes of the neighbours of a site; absent ones count nowhere."""


def _attributes(layer: Any) -> dict[str, Any]:
    return {"kind": layer.argument("kind"), **map_attributes(layer)}


def _shape(operands: Sequence[Any], attributes: Mapping[str, Any]) -> list[int]:
    features, kernel_map = operands
    return [kernel_map.shape[0], features.shape[1]]


POOL = OperatorSpec(
    name="pool",
    schema="(Tensor features, Tensor kernel_map, *, str name, str kind) -> Tensor",
    operands=(Operand("features", Kind.FEATURES), Operand("kernel_map", Kind.MAP)),
    gives=(Kind.FEATURES,),
    sites=Sites.MAP,
    onnx=OnnxForm(
        op_type="SparsePool",
        doc="The largest, mean or sum of each output site's neighbours, over the map named by `rulebook`.",
        attributes=_attributes,
        arguments=lambda attributes: {"kind": attributes["kind"]},
        shape=_shape,
        types={"kind": "s", **MAP_TYPES},
        may_lack=frozenset({"transposed", "inverse", "output_padding"}),
        dialects=frozenset({SCN_FX}),
    ),
)
