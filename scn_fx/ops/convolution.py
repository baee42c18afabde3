# SPDX-License-Identifier: Apache-2.0
"""Sparse convolution over a kernel map, with bias and activation.

``y[m] = act(bias + Σ_k weight[:, k] · x[map[m, k]])`` over the offsets k whose entry is not -1, in one of
three precisions: float32, float16 (float32 accumulation) or int8 (exact integer sums).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import torch

from scn_fx.errors import BoundError, ScnError, SiteError
from scn_fx.ops.checks import (
    check_activation,
    check_bound,
    check_channel_ranges,
    check_channels,
    check_features,
    check_kernel_map,
    check_precisions,
    check_range,
    geometry_of,
    reject_integer_backward,
    relu_gradient,
    result_dtype,
    shape_text,
    to_half,
)
from scn_fx.ops.dispatch import array, core, define, fake, only_shapes_matter

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
    floats = (torch.float16, torch.float32)
    if weight.dim() != 5 or list(weight.shape[1:4]) != list(kernel_size) or weight.dtype not in floats:
        raise ScnError(
            f"Layer {name!r}: weight must be float16 or float32 [out, {', '.join(map(str, kernel_size))}, "
            f"in] for a kernel of {list(kernel_size)}, got {shape_text(weight)}."
        )
    out_channels, in_channels = int(weight.shape[0]), int(weight.shape[4])
    check_channels(name, "the weight's output", out_channels)
    if bias is not None and (list(bias.shape) != [out_channels] or bias.dtype not in floats):
        raise ScnError(
            f"Layer {name!r}: bias must be float16 or float32 [{out_channels}], got {shape_text(bias)}."
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
    """Convolve `features`, float16 or float32 [N, in], over `kernel_map`, int32 [M, K], to [M, out].

    `weight` is [out, kz, ky, kx, in], `bias` [out] or None. With precision "fp16" or "int8" weight and bias
    are rounded to float16 first. The result is float16 for output_precision "fp16", else float32: "int8"
    means that the consumers quantise the unrounded value. CalibrationError for missing or unusable ranges,
    BoundError for more than `output_bound` rows, OverflowedError where float16 cannot hold a value.
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
    if precision == "fp16":
        features = to_half(name, "features", features)
    if precision != "fp32":
        weight = to_half(name, "weight", weight)
        bias = None if bias is None else to_half(name, "bias", bias)
    quantised = precision == "int8"
    result = core().convolution(
        array(features),
        array(weight),
        None if bias is None else array(bias.float()),
        array(kernel_map),
        precision,
        output_precision,
        activation == "ReLU",
        float(input_dynamic_range or 0.0) if quantised else 0.0,
        np.asarray(weight_dynamic_ranges, np.float32) if quantised else None,
        name=name,
    )
    return torch.from_numpy(result)


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
    ctx.output_precision = keyword_only_inputs["output_precision"]


def _backward(
    ctx: Any, grad: torch.Tensor
) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None, None]:
    """Gradients of features, weight and bias: one gather, product and scatter per kernel offset."""
    reject_integer_backward(ctx.name, ctx.precision, ctx.output_precision)
    features, weight, kernel_map, output = ctx.saved_tensors
    grad = grad.float()
    if ctx.relu:
        grad = relu_gradient(grad, output)
    count, channels = features.shape
    # Row `count` stands for "no site": it reads zeros, and what is added to it is dropped.
    rows = torch.where(kernel_map < 0, count, kernel_map).long()
    flat = weight.float().reshape(weight.shape[0], -1, channels)
    needs_features, needs_weight, needs_bias = ctx.needs_input_grad[:3]
    grad_features = grad_weight = grad_bias = None
    if needs_features:
        total = grad.new_zeros((count + 1, channels))
        for k in range(flat.shape[1]):
            total = total.index_add(0, rows[:, k], grad @ flat[:, k])
        grad_features = total[:count].to(features.dtype)
    if needs_weight:
        padded = torch.cat([features.float(), grad.new_zeros((1, channels))])
        per_offset = [grad.t() @ padded[rows[:, k]] for k in range(flat.shape[1])]
        grad_weight = torch.stack(per_offset, 1).reshape(weight.shape).to(weight.dtype)
    if needs_bias and ctx.bias_dtype is not None:
        grad_bias = grad.sum(0).to(ctx.bias_dtype)
    return grad_features, grad_weight, grad_bias, None


convolution.register_autograd(_backward, setup_context=_save)
