# SPDX-License-Identifier: Apache-2.0
"""A scale and a shift for each channel, as a BatchNorm in evaluation has; kernels are in `scn_fx.ops.affine`.

Only the project's own dialect has it: for libspconv, `scn_fx.passes.lower_channel_maps` writes a convolution.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from scn_fx.operators.dialects import SCN_FX
from scn_fx.operators.onnx_form import OnnxForm
from scn_fx.operators.spec import Kind, Operand, OperatorSpec, Sites

__all__ = ["AFFINE"]


def _numbers(given: Mapping[str, Any]) -> dict[str, list[float]]:
    return {name: [float(value) for value in given[name]] for name in ("scale", "shift")}


def _attributes(layer: Any) -> dict[str, Any]:
    return dict(_numbers({name: layer.argument(name) for name in ("scale", "shift")}))


def _shape(operands: Sequence[Any], attributes: Mapping[str, Any]) -> list[int]:
    return list(operands[0].shape)


AFFINE = OperatorSpec(
    name="affine",
    schema="(Tensor x, *, str name, float[] scale, float[] shift) -> Tensor",
    operands=(Operand("x", Kind.FEATURES),),
    gives=(Kind.FEATURES,),
    sites=Sites.SAME,
    avoidable=True,
    suffix="affine",
    modules=("BatchNorm1d", "SyncBatchNorm", "NaiveSyncBatchNorm1d"),
    onnx=OnnxForm(
        op_type="Affine",
        doc="x * scale + shift, channel by channel.",
        attributes=_attributes,
        arguments=_numbers,
        types={"scale": "floats", "shift": "floats"},
        shape=_shape,
        dialects=frozenset({SCN_FX}),
    ),
)
