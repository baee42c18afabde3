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

from scn_fx.errors import ScnError, SiteError
from scn_fx.operators.activations import NO_ACTIVATION
from scn_fx.operators.convolution import CONVOLUTION
from scn_fx.ops.activations import before_activation, check_activation
from scn_fx.ops.checks import (
    FLOATS,
    FLOATS_TEXT,
    check_channel_ranges,
    check_channels,
    check_features,
    check_kernel_map,
    check_precisions,
    check_range,
    result_dtype,
    shape_text,
)
from scn_fx.ops.devices import kernels_for
from scn_fx.ops.dispatch import define, fake, only_shapes_matter
from scn_fx.ops.known_maps import rows_read
from scn_fx.ops.products import transposed_product, weight_gradient
from scn_fx.ops.straight_through import as_used, weight_as_used

__all__ = ["convolution"]


def _check(
    features: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    kernel_map: torch.Tensor,
    name: str,
    activation: tuple[str, float],
    precision: str,
    output_precision: str,
    input_dynamic_range: float | None,
    weight_dynamic_ranges: Sequence[float] | None,
) -> None:
    """Everything that can be checked without looking at values or at the number of sites."""
    if weight.dim() != 5 or weight.dtype not in FLOATS:
        raise ScnError(
            f"Layer {name!r}: weight must be {FLOATS_TEXT} [out, kz, ky, kx, in], got {shape_text(weight)}."
        )
    out_channels, in_channels = int(weight.shape[0]), int(weight.shape[4])
    check_channels(name, "the weight's output", out_channels)
    if bias is not None and (list(bias.shape) != [out_channels] or bias.dtype not in FLOATS):
        raise ScnError(
            f"Layer {name!r}: bias must be {FLOATS_TEXT} [{out_channels}], got {shape_text(bias)}."
        )
    check_features(name, features, channels=in_channels)
    check_kernel_map(name, kernel_map, prod(weight.shape[1:4]))
    check_activation(name, *activation)
    check_precisions(name, precision, output_precision)
    if precision == "int8":
        amax = check_range(name, "input_dynamic_range", input_dynamic_range)
        check_channel_ranges(name, weight_dynamic_ranges, out_channels, amax)


@define(CONVOLUTION.name, CONVOLUTION.schema)
def convolution(
    features: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    kernel_map: torch.Tensor,
    *,
    name: str,
    activation: str,
    activation_parameter: float = 0.0,
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
    SiteError for features of other sites than the map's, OverflowedError where float16 cannot hold a value.

    Gradients are those of float32 arithmetic, straight through the rounding of float16 and int8 (see
    `straight_through`). They need a map that has an inverse, as each map of the operators has.
    """
    _check(
        features, weight, bias, kernel_map, name, (activation, activation_parameter), precision,
        output_precision, input_dynamic_range, weight_dynamic_ranges,
    )  # fmt: skip
    rows = kernel_map.shape[0]
    if only_shapes_matter():
        return features.new_zeros((rows, weight.shape[0]), dtype=result_dtype(output_precision))
    sites = rows_read(kernel_map)
    if sites is not None and features.shape[0] != sites:
        raise SiteError(
            f"Layer {name!r}: a convolution needs one feature row per site, got {features.shape[0]} rows of "
            f"features for {sites} sites. Pass features and indices of the same frame."
        )
    quantised = precision == "int8"
    return kernels_for(features).convolution(
        features,
        weight,
        bias,
        kernel_map,
        name,
        (activation, activation_parameter),
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
    activation: str,
    activation_parameter: float = 0.0,
    precision: str = "fp32",
    output_precision: str = "fp32",
    input_dynamic_range: float | None = None,
    weight_dynamic_ranges: Sequence[float] | None = None,
) -> torch.Tensor:
    _check(
        features, weight, bias, kernel_map, name, (activation, activation_parameter), precision,
        output_precision, input_dynamic_range, weight_dynamic_ranges,
    )  # fmt: skip
    return features.new_empty((kernel_map.shape[0], weight.shape[0]), dtype=result_dtype(output_precision))


def _save(
    ctx: Any, inputs: tuple[Any, ...], keyword_only_inputs: dict[str, Any], output: torch.Tensor
) -> None:
    features, weight, bias, kernel_map = inputs
    ctx.save_for_backward(features, weight, bias, kernel_map, output)
    ctx.keywords = keyword_only_inputs


def _backward(
    ctx: Any, grad: torch.Tensor
) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None, None]:
    """Gradients of features, weight and bias; straight through what float16 and int8 round."""
    features, weight, bias, kernel_map, output = ctx.saved_tensors
    given = ctx.keywords
    name, precision = given["name"], given["precision"]

    def before() -> torch.Tensor:
        """The sums, unrounded."""
        sums = {**given, "activation": NO_ACTIVATION, "output_precision": "int8"}
        with torch.no_grad():
            return convolution(features, weight, bias, kernel_map, **sums)

    activation = given["activation"], given["activation_parameter"]
    grad = before_activation(grad.float(), output, before, *activation)
    rows, channels = features.shape
    x = as_used(features, precision, given["input_dynamic_range"])
    w = weight_as_used(
        weight.reshape(weight.shape[0], -1, channels), precision, given["weight_dynamic_ranges"]
    )
    needs_features, needs_weight, needs_bias = ctx.needs_input_grad[:3]
    grad_features = grad_weight = grad_bias = None
    if needs_features:
        made = transposed_product(grad, w.values, kernel_map, rows, name)
        grad_features = x.masked(made).to(features.dtype)
    if needs_weight:
        made = weight_gradient(grad, x.values, kernel_map, name=name)
        grad_weight = w.masked(made).reshape(weight.shape).to(weight.dtype)
    if needs_bias and bias is not None:
        grad_bias = grad.sum(0).to(bias.dtype)
    return grad_features, grad_weight, grad_bias, None


convolution.register_autograd(_backward, setup_context=_save)
