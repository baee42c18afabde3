# SPDX-License-Identifier: Apache-2.0
"""Sparse convolution over a kernel map, with bias and activation.

``y[m] = act(bias + Σ_k weight[:, k] · x[map[m, k]])`` over the offsets k whose entry is not -1, in one of
three precisions: float32, float16 (float32 accumulation) or int8 (exact integer sums).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch

from scn_fx.errors import BoundError, ScnError, SiteError
from scn_fx.ops.checks import (
    FLOATS,
    FLOATS_TEXT,
    check_activation,
    check_bound,
    check_channel_ranges,
    check_channels,
    check_features,
    check_kernel_map,
    check_precisions,
    check_range,
    geometry_of,
    relu_gradient,
    result_dtype,
    shape_text,
)
from scn_fx.ops.devices import kernels_for
from scn_fx.ops.dispatch import define, fake, only_shapes_matter
from scn_fx.ops.products import transposed_product, weight_gradient
from scn_fx.ops.straight_through import as_used, weight_as_used

__all__ = ["convolution"]


def _check(
    features: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    kernel_map: torch.Tensor,
    name: str,
    activation: str,
    output_bound: int,
    precision: str,
    output_precision: str,
    input_dynamic_range: float | None,
    weight_dynamic_ranges: Sequence[float] | None,
    **numbers: Any,
) -> None:
    """Everything that can be checked without looking at values or at the number of sites."""
    kernel_size = geometry_of(name, **numbers).kernel_size
    check_bound(name, output_bound)
    if weight.dim() != 5 or list(weight.shape[1:4]) != list(kernel_size) or weight.dtype not in FLOATS:
        raise ScnError(
            f"Layer {name!r}: weight must be {FLOATS_TEXT} [out, {', '.join(map(str, kernel_size))}, "
            f"in] for a kernel of {list(kernel_size)}, got {shape_text(weight)}."
        )
    out_channels, in_channels = int(weight.shape[0]), int(weight.shape[4])
    check_channels(name, "the weight's output", out_channels)
    if bias is not None and (list(bias.shape) != [out_channels] or bias.dtype not in FLOATS):
        raise ScnError(
            f"Layer {name!r}: bias must be {FLOATS_TEXT} [{out_channels}], got {shape_text(bias)}."
        )
    check_features(name, features, channels=in_channels)
    check_kernel_map(name, kernel_map, prod(kernel_size))
    check_activation(name, activation)
    check_precisions(name, precision, output_precision)
    if precision == "int8":
        amax = check_range(name, "input_dynamic_range", input_dynamic_range)
        check_channel_ranges(name, weight_dynamic_ranges, out_channels, amax)


@define(
    "convolution",
    "(Tensor features, Tensor weight, Tensor? bias, Tensor kernel_map, *, str name, str rulebook, str "
    "activation, int[] kernel_size, int[] stride, int[] padding, int[] dilation, int[] output_padding, "
    "int[] input_spatial_shape, int[] output_spatial_shape, bool subm, bool inverse, bool transposed, "
    'int output_bound, str precision="fp32", str output_precision="fp32", float? input_dynamic_range=None, '
    "float[]? weight_dynamic_ranges=None) -> Tensor",
)
def convolution(
    features: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    kernel_map: torch.Tensor,
    *,
    name: str,
    rulebook: str,
    activation: str,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    output_padding: Sequence[int],
    input_spatial_shape: Sequence[int],
    output_spatial_shape: Sequence[int],
    subm: bool,
    inverse: bool,
    transposed: bool,
    output_bound: int,
    precision: str = "fp32",
    output_precision: str = "fp32",
    input_dynamic_range: float | None = None,
    weight_dynamic_ranges: Sequence[float] | None = None,
) -> torch.Tensor:
    """Convolve `features` [N, in] over `kernel_map`, int32 [M, K], to [M, out].

    Features, weight and bias are float16, bfloat16 or float32 each, whatever autocast brings.

    `weight` is [out, kz, ky, kx, in], `bias` [out] or None. With precision "fp16" or "int8" weight and bias
    are rounded to float16 first. The result is float16 for output_precision "fp16", else float32: "int8"
    means that the consumers quantise the unrounded value. CalibrationError for missing or unusable ranges,
    BoundError for more than `output_bound` rows, OverflowedError where float16 cannot hold a value.

    Gradients are those of float32 arithmetic, straight through the rounding of float16 and int8 (see
    `straight_through`). They need a map that has an inverse, as each map of the operators has.
    """
    _check(
        features,
        weight,
        bias,
        kernel_map,
        name,
        activation,
        output_bound,
        precision,
        output_precision,
        input_dynamic_range,
        weight_dynamic_ranges,
        kernel_size=kernel_size,
        stride=stride,
        padding=padding,
        dilation=dilation,
        output_padding=output_padding,
        input_spatial_shape=input_spatial_shape,
        output_spatial_shape=output_spatial_shape,
        subm=subm,
        inverse=inverse,
        transposed=transposed,
    )
    rows = kernel_map.shape[0]
    if only_shapes_matter():
        return features.new_zeros((rows, weight.shape[0]), dtype=result_dtype(output_precision))
    if rows > output_bound:
        raise BoundError(
            f"Layer {name!r} has {rows} output sites, more than its output_bound of {output_bound}. Capture "
            f"the model with an output_bound of at least {rows}, or feed fewer voxels."
        )
    if subm and features.shape[0] != rows:
        raise SiteError(
            f"Layer {name!r}: a submanifold convolution needs one feature row per site, got "
            f"{features.shape[0]} rows of features for {rows} sites. Pass features and indices of the same "
            "frame."
        )
    quantised = precision == "int8"
    return kernels_for(features).convolution(
        features,
        weight,
        bias,
        kernel_map,
        name,
        activation == "ReLU",
        precision,
        output_precision,
        float(input_dynamic_range or 0.0) if quantised else 0.0,
        weight_dynamic_ranges if quantised else None,
    )


@fake(convolution)
def _(
    features: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    kernel_map: torch.Tensor,
    *,
    name: str,
    rulebook: str,
    activation: str,
    output_bound: int,
    precision: str = "fp32",
    output_precision: str = "fp32",
    input_dynamic_range: float | None = None,
    weight_dynamic_ranges: Sequence[float] | None = None,
    **numbers: Any,
) -> torch.Tensor:
    _check(
        features, weight, bias, kernel_map, name, activation, output_bound, precision, output_precision,
        input_dynamic_range, weight_dynamic_ranges, **numbers,
    )  # fmt: skip
    return features.new_empty((kernel_map.shape[0], weight.shape[0]), dtype=result_dtype(output_precision))


def _save(
    ctx: Any, inputs: tuple[Any, ...], keyword_only_inputs: dict[str, Any], output: torch.Tensor
) -> None:
    features, weight, bias, kernel_map = inputs
    ctx.save_for_backward(features, weight, kernel_map, output)
    ctx.bias_dtype = None if bias is None else bias.dtype
    ctx.name = keyword_only_inputs["name"]
    ctx.relu = keyword_only_inputs["activation"] == "ReLU"
    ctx.precision = keyword_only_inputs["precision"]
    ctx.input_range = keyword_only_inputs["input_dynamic_range"]
    ctx.weight_ranges = keyword_only_inputs["weight_dynamic_ranges"]


def _backward(
    ctx: Any, grad: torch.Tensor
) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None, None]:
    """Gradients of features, weight and bias; straight through what float16 and int8 round."""
    features, weight, kernel_map, output = ctx.saved_tensors
    grad = (relu_gradient(grad, output) if ctx.relu else grad).float()
    rows, channels = features.shape
    x = as_used(features, ctx.precision, ctx.input_range)
    w = weight_as_used(weight.reshape(weight.shape[0], -1, channels), ctx.precision, ctx.weight_ranges)
    needs_features, needs_weight, needs_bias = ctx.needs_input_grad[:3]
    grad_features = grad_weight = grad_bias = None
    if needs_features:
        made = transposed_product(grad, w.values, kernel_map, rows, ctx.name)
        grad_features = x.masked(made).to(features.dtype)
    if needs_weight:
        made = weight_gradient(grad, x.values, kernel_map, name=ctx.name)
        grad_weight = w.masked(made).reshape(weight.shape).to(weight.dtype)
    if needs_bias and ctx.bias_dtype is not None:
        grad_bias = grad.sum(0).to(ctx.bias_dtype)
    return grad_features, grad_weight, grad_bias, None


convolution.register_autograd(_backward, setup_context=_save)
