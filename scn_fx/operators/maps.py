# SPDX-License-Identifier: Apache-2.0
"""The operators that make sites and kernel maps; their kernels are in `scn_fx.ops.kernel_maps`.

What layers of one map have in common is said here alone: geometry, rulebook (the map's name in files; empty:
that of the layer) and `output_bound` (most output sites, by which engines size their buffers).
"""

from __future__ import annotations

from typing import Any

from scn_fx.geometry import MOST_SITES, ConvGeometry, Triple
from scn_fx.operators.spec import GridRule, Kind, MapRule, MapSide, Operand, OperatorSpec

__all__ = ["CONV_MAP", "INPUT_SITES", "INVERSE_MAP", "MAP_TYPES", "SUBM_MAP", "map_attributes"]

MAP_TYPES = {
    "input_spatial_shape": "ints", "output_spatial_shape": "ints", "kernel_size": "ints",
    "output_bound": "i", "stride": "ints", "dilation": "ints", "padding": "ints", "transposed": "i",
    "inverse": "i", "output_padding": "ints", "subm": "i", "rulebook": "s",
}  # fmt: skip
"""ONNX types of the attributes that say a node's kernel map."""


def map_attributes(layer: Any) -> dict[str, Any]:
    """The attributes of a node that say its kernel map."""
    geometry = layer.geometry
    return {
        "input_spatial_shape": list(geometry.input_spatial_shape),
        "output_spatial_shape": list(geometry.output_spatial_shape),
        "kernel_size": list(geometry.kernel_size),
        "output_bound": layer.output_bound,
        "stride": list(geometry.stride),
        "dilation": list(geometry.dilation),
        "padding": list(geometry.padding),
        "transposed": int(geometry.transposed),
        "inverse": int(geometry.inverse),
        "output_padding": list(geometry.output_padding),
        "subm": int(geometry.subm),
        "rulebook": layer.rulebook,
    }


_INDICES = Operand("indices", Kind.SITES)
_NAMED = f'str rulebook="", int output_bound={MOST_SITES}'


def _strided(output_padding: Triple = (0, 0, 0), **numbers: Any) -> ConvGeometry:
    """The output grid is given: that of a transposed convolution does not follow from the rest."""
    return ConvGeometry(output_padding=output_padding, **numbers)


SUBM_MAP = OperatorSpec(
    name="subm_map",
    schema=(
        "(Tensor indices, *, str name, int batch_size, int[] spatial_shape, int[] kernel_size, "
        f"int[] dilation, {_NAMED}) -> Tensor"
    ),
    operands=(_INDICES,),
    gives=(Kind.MAP,),
    map=MapRule(
        MapSide.OPERAND,
        MapSide.OPERAND,
        lambda spatial_shape, kernel_size, dilation: ConvGeometry.submanifold(
            spatial_shape, kernel_size, dilation
        ),
        ("spatial_shape", "kernel_size", "dilation"),
    ),
    grid=GridRule("spatial_shape"),
    node_suffix="_map",
)

CONV_MAP = OperatorSpec(
    name="conv_map",
    schema=(
        "(Tensor indices, *, str name, int batch_size, int[] input_spatial_shape, int[] "
        "output_spatial_shape, int[] kernel_size, int[] stride, int[] padding, int[] dilation, bool "
        f"transposed, int[] output_padding=[0, 0, 0], {_NAMED}) -> (Tensor, Tensor)"
    ),
    operands=(_INDICES,),
    gives=(Kind.SITES, Kind.MAP),
    map=MapRule(
        MapSide.OPERAND,
        MapSide.NEW,
        _strided,
        (
            "input_spatial_shape", "output_spatial_shape", "kernel_size", "stride", "padding", "dilation",
            "transposed", "output_padding",
        ),
        item=1,
    ),
    grid=GridRule("input_spatial_shape", made="output_spatial_shape"),
    node_suffix="_sites_and_map",
)  # fmt: skip

INVERSE_MAP = OperatorSpec(
    name="inverse_map",
    schema=f"(Tensor kernel_map, Tensor indices, *, str name, int output_bound={MOST_SITES}) -> Tensor",
    operands=(Operand("kernel_map", Kind.MAP), _INDICES),
    gives=(Kind.MAP,),
    map=MapRule(MapSide.PARTNER, MapSide.OPERAND),
    node_suffix="_map",
)

INPUT_SITES = OperatorSpec(
    name="input_sites",
    schema="(Tensor features, *, int[] spatial_shape=[]) -> Tensor",
    operands=(Operand("features", Kind.FEATURES),),
    gives=(Kind.SITES,),
)
"""Placeholder sites for the view of a graph, which takes the features alone; not in captured graphs."""
