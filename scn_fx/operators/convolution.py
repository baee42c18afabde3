# SPDX-License-Identifier: Apache-2.0
"""Sparse convolution; its kernels are in `scn_fx.ops.convolution`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from scn_fx.operators.activations import ACTIVATIONS, real_activations
from scn_fx.operators.maps import map_attributes
from scn_fx.operators.onnx_form import PRECISIONS, Attributes, OnnxForm, precision_attributes
from scn_fx.operators.spec import Kind, Operand, OperatorSpec, Range, Sites

__all__ = ["CONVOLUTION"]


def _attributes(layer: Any) -> Attributes:
    channels = layer.weight.shape
    return {
        "ndim": 3,
        "in_channels": int(channels[4]),
        "out_channels": int(channels[0]),
        "groups": 1,
        **map_attributes(layer),
        "activation": layer.activation,
        **ACTIVATIONS[layer.activation].attributes(layer.activation_parameter),
        # The number of sites is not known before a frame arrives.
        "input_shape": [-1, int(channels[4])],
        "output_shape": [-1, int(channels[0])],
        **precision_attributes(layer),
    }


def _arguments(attributes: Mapping[str, Any]) -> dict[str, Any]:
    name = attributes.get("activation", "None")
    parameter = ACTIVATIONS[name].parameter
    value = 0.0 if parameter is None else attributes.get(parameter.attribute, parameter.default)
    ranges = ("input_dynamic_range", "weight_dynamic_ranges")
    return {
        "activation": name,
        **ACTIVATIONS[name].keywords(value),
        **{key: attributes[key] for key in ranges if key in attributes},
    }


def _shape(operands: Sequence[Any], attributes: Mapping[str, Any]) -> list[int]:
    from scn_fx.ops.checks import check_features  # which knows torch

    features, weight, _, kernel_map = operands
    check_features(attributes["name"], features, channels=int(weight.shape[4]))
    return [kernel_map.shape[0], weight.shape[0]]


_TYPES = {
    "ndim": "i", "input_spatial_shape": "ints", "output_spatial_shape": "ints", "in_channels": "i",
    "out_channels": "i", "kernel_size": "ints", "output_bound": "i", "stride": "ints", "dilation": "ints",
    "padding": "ints", "transposed": "i", "inverse": "i", "output_padding": "ints", "groups": "i",
    "subm": "i", "rulebook": "s", "activation": "s",
    **{each.parameter.attribute: "f" for each in real_activations() if each.parameter},
    "input_shape": "ints", "output_shape": "ints", **PRECISIONS, "input_dynamic_range": "f",
    "weight_dynamic_ranges": "floats",
}  # fmt: skip
_REQUIRED = frozenset(
    {
        "activation", "kernel_size", "stride", "padding", "dilation", "subm", "inverse", "output_bound",
        "rulebook",
    }
)  # fmt: skip
"""What libspconv reads of a float network."""

CONVOLUTION = OperatorSpec(
    name="convolution",
    schema=(
        "(Tensor features, Tensor weight, Tensor? bias, Tensor kernel_map, *, str name, str activation, "
        'float activation_parameter=0.0, str precision="fp32", str output_precision="fp32", '
        "float? input_dynamic_range=None, float[]? weight_dynamic_ranges=None) -> Tensor"
    ),
    operands=(
        Operand("features", Kind.FEATURES),
        Operand("weight", Kind.PARAMETER),
        Operand("bias", Kind.PARAMETER, optional=True),
        Operand("kernel_map", Kind.MAP),
    ),
    gives=(Kind.FEATURES,),
    sites=Sites.MAP,
    ranges=(
        Range("input_dynamic_range", "features"),
        Range("weight_dynamic_ranges", "weight", per_channel=True),
    ),
    onnx=OnnxForm(
        op_type="SparseConvolution",
        doc="Sparse convolution over the kernel map named by `rulebook`, with bias and activation.",
        inputs=("x", "weight", "bias"),
        attributes=_attributes,
        arguments=_arguments,
        shape=_shape,
        precise=True,
        types=_TYPES,
        may_lack=frozenset(_TYPES) - _REQUIRED,
    ),
)  # fmt: skip
