# SPDX-License-Identifier: Apache-2.0
"""LayerNorm and GroupNorm: each row over groups of its channels; kernels are in `scn_fx.ops.group_norm`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scn_fx.operators.aten import AtenCall, Lowered
from scn_fx.operators.dialects import SCN_FX
from scn_fx.operators.onnx_form import OnnxForm
from scn_fx.operators.spec import Kind, Operand, OperatorSpec, Sites

__all__ = ["GROUP_NORM"]


def _parameters(call: AtenCall, channels: int) -> dict[str, list[float]] | str:
    """Scale and shift of a call; ones and zeros where it has none."""
    found = {}
    for name, argument, missing in (("scale", "weight", 1.0), ("shift", "bias", 0.0)):
        value = call.argument(argument)
        numbers = [missing] * channels if value is None else call.numbers(value)
        if numbers is None:
            return f"its {argument} is computed by the forward"
        found[name] = numbers
    return found


def _lowered(call: AtenCall, groups: int) -> Lowered | str:
    x = call.argument("input")
    reason = call.not_features(x)
    channels = call.channels(x)
    if reason is not None or channels is None:
        return f"its operand is {reason}"
    found = _parameters(call, channels)
    if isinstance(found, str):
        return found
    return Lowered((x,), {"groups": groups, "epsilon": float(call.argument("eps")), **found})


def _layer_norm(call: AtenCall) -> Lowered | str:
    """Over all channels of a site."""
    shape = list(call.argument("normalized_shape"))
    if shape != [call.channels(call.argument("input"))]:
        return f"it normalises over the last {len(shape)} axes, {shape}"
    return _lowered(call, 1)


def _group_norm(call: AtenCall) -> Lowered | str:
    return _lowered(call, int(call.argument("num_groups")))


def _attributes(layer: Any) -> dict[str, Any]:
    numbers = {name: [float(value) for value in layer.argument(name)] for name in ("scale", "shift")}
    return {"num_groups": layer.argument("groups"), "epsilon": float(layer.argument("epsilon")), **numbers}


def _arguments(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "groups": int(attributes["num_groups"]),
        "epsilon": attributes["epsilon"],
        **{name: [float(value) for value in attributes[name]] for name in ("scale", "shift")},
    }


GROUP_NORM = OperatorSpec(
    name="group_norm",
    schema="(Tensor x, *, str name, int groups, float epsilon, float[] scale, float[] shift) -> Tensor",
    operands=(Operand("x", Kind.FEATURES),),
    gives=(Kind.FEATURES,),
    sites=Sites.SAME,
    aten={"layer_norm": _layer_norm, "group_norm": _group_norm},
    advice="LayerNorm over the channels of a site, and GroupNorm of features [N, C], are supported.",
    suffix="norm",
    modules=("LayerNorm", "GroupNorm"),
    onnx=OnnxForm(
        op_type="GroupNormalization",
        doc="(x - mean) / sqrt(variance + epsilon) * scale + shift, over num_groups groups of channels.",
        attributes=_attributes,
        arguments=_arguments,
        types={"num_groups": "i", "epsilon": "f", "scale": "floats", "shift": "floats"},
        dialects=frozenset({SCN_FX}),
    ),
)
