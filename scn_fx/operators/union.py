# SPDX-License-Identifier: Apache-2.0
"""The sum of sparse tensors that lie on different sites of one grid; its kernels are in `scn_fx.ops.union`.

The result lies wherever one of them does. What the model merges by `torch.unique` is written with it and with
pooling, see `scn_fx.passes.lower_merging`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from scn_fx.geometry import MOST_SITES, ConvGeometry
from scn_fx.operators.dialects import SCN_FX
from scn_fx.operators.onnx_form import OnnxForm
from scn_fx.operators.spec import GridRule, Kind, MapRule, MapSide, Operand, OperatorSpec, Sites

__all__ = ["MOST_PARTS", "UNION", "UNION_MAP"]

MOST_PARTS = 8
"""Tensors that one sum takes, as engines do (csrc/plan/network.h has the same)."""

_ONES = (1, 1, 1)


def _attributes(layer: Any) -> dict[str, Any]:
    return {
        "spatial_shape": list(layer.geometry.input_spatial_shape),
        "output_bound": layer.output_bound,
        "rulebook": layer.rulebook,
    }


def _shape(operands: Sequence[Any], attributes: Mapping[str, Any]) -> list[int]:
    features, kernel_map = operands
    return [kernel_map.shape[0], features[0].shape[1]]


UNION_MAP = OperatorSpec(
    name="union_map",
    schema=(
        "(Tensor[] indices, *, str name, int batch_size, int[] spatial_shape, "
        f'str rulebook="", int output_bound={MOST_SITES}) -> (Tensor, Tensor)'
    ),
    operands=(Operand("indices", Kind.SITES, many=True),),
    gives=(Kind.SITES, Kind.MAP),
    map=MapRule(
        MapSide.EACH,
        MapSide.NEW,
        # each column is the map of a kernel of one offset
        lambda spatial_shape: ConvGeometry(
            _ONES, _ONES, (0, 0, 0), _ONES, (0, 0, 0), spatial_shape, spatial_shape
        ),
        ("spatial_shape",),
        item=1,
    ),
    grid=GridRule("spatial_shape", made="spatial_shape"),
    node_suffix="_sites_and_map",
)

UNION = OperatorSpec(
    name="union",
    schema="(Tensor[] inputs, Tensor kernel_map, *, str name) -> Tensor",
    operands=(Operand("inputs", Kind.FEATURES, many=True), Operand("kernel_map", Kind.MAP)),
    gives=(Kind.FEATURES,),
    sites=Sites.MAP,
    suffix="union",
    modules=("AddTableMisaligned",),
    onnx=OnnxForm(
        op_type="SparseUnion",
        doc="The sum of the inputs that have a site, in their order, on the union of their sites.",
        attributes=_attributes,
        shape=_shape,
        types={"spatial_shape": "ints", "output_bound": "i", "rulebook": "s"},
        may_lack=frozenset({"spatial_shape"}),
        dialects=frozenset({SCN_FX}),
    ),
)
