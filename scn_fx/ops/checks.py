# SPDX-License-Identifier: Apache-2.0
"""Checks of operands and arguments that all operators word alike."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from scn_fx.errors import CalibrationError, OverflowedError, ScnError, SiteError

__all__ = [
    "ACTIVATIONS",
    "PRECISIONS",
    "check_activation",
    "check_channel_ranges",
    "check_features",
    "check_kernel_map",
    "check_precisions",
    "check_range",
    "check_sites",
    "reject_integer_backward",
    "relu_gradient",
    "result_dtype",
    "shape_text",
    "to_half",
    "usable_range",
]

ACTIVATIONS = ("None", "ReLU")
PRECISIONS = ("fp32", "fp16", "int8")


def shape_text(tensor: torch.Tensor) -> str:
    """Shape and dtype of `tensor` for messages."""
    return f"{list(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def check_sites(name: str, indices: torch.Tensor, what: str = "indices") -> None:
    """`indices` must be int32 [N, 4] (batch, z, y, x)."""
    if indices.dim() != 2 or indices.shape[1] != 4 or indices.dtype != torch.int32:
        hint = " Convert them with indices.int()." if not indices.dtype.is_floating_point else ""
        raise SiteError(
            f"Layer {name!r}: {what} must be int32 [N, 4] (batch, z, y, x), got {shape_text(indices)}.{hint}"
        )


def check_features(
    name: str, features: torch.Tensor, what: str = "features", channels: int | None = None
) -> None:
    """`features` must be float16 or float32 [N, channels]."""
    width = "C" if channels is None else str(channels)
    if features.dim() != 2 or features.dtype not in (torch.float16, torch.float32):
        hint = " Convert them with .float() first." if features.dim() == 2 else ""
        raise SiteError(
            f"Layer {name!r}: {what} must be float16 or float32 [N, {width}], got {shape_text(features)}."
            f"{hint}"
        )
    if channels is not None and features.shape[1] != channels:
        raise SiteError(
            f"Layer {name!r}: {what} must have {channels} channels, as the layer's weight does, got "
            f"{shape_text(features)}. Give it features of the width that the model was captured with."
        )


def check_kernel_map(name: str, kernel_map: torch.Tensor, offsets: int | None = None) -> None:
    """`kernel_map` must be int32 [M, offsets]."""
    width = "K" if offsets is None else str(offsets)
    if (
        kernel_map.dim() != 2
        or kernel_map.dtype != torch.int32
        or (offsets is not None and kernel_map.shape[1] != offsets)
    ):
        raise SiteError(
            f"Layer {name!r}: the kernel map must be int32 [M, {width}] (a column per kernel offset), got "
            f"{shape_text(kernel_map)}. Use the map that subm_map, conv_map or inverse_map made for this "
            "kernel."
        )


def check_activation(name: str, activation: str) -> None:
    """`activation` must be one that the dialect knows."""
    if activation not in ACTIVATIONS:
        raise ScnError(
            f"Layer {name!r}: activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}."
        )


def check_precisions(name: str, precision: str, output_precision: str) -> None:
    """Both must be known, and float32 results come from float32 arithmetic only."""
    for what, value in (("precision", precision), ("output_precision", output_precision)):
        if value not in PRECISIONS:
            raise ScnError(f"Layer {name!r}: {what} must be one of {', '.join(PRECISIONS)}, got {value!r}.")
    if output_precision == "fp32" and precision != "fp32":
        raise ScnError(
            f"Layer {name!r}: output_precision 'fp32' needs precision 'fp32', got precision {precision!r}. "
            "Choose 'fp16', or 'int8' where every consumer computes in int8."
        )


def usable_range(amax: float) -> bool:
    """Whether `amax` is finite, positive and large enough that 127 / amax is finite, all in float32."""
    value = float(np.float32(amax)) if math.isfinite(amax) and abs(amax) < 3.4e38 else math.inf
    return 0.0 < value < math.inf and 127.0 / value <= float(np.finfo(np.float32).max)


def check_range(name: str, what: str, amax: float | None) -> float:
    """The range `amax` of one tensor, or CalibrationError when it is missing or unusable."""
    if amax is None:
        raise CalibrationError(
            f"Node {name!r} computes in int8 but has no {what}. Run quant.calibrate(graph, frames) first, or "
            "give the node precision 'fp16'."
        )
    if not usable_range(amax):
        raise CalibrationError(
            f"Node {name!r}: {what} must be finite and > 0, got {amax!r}. Its calibration frames gave only "
            "zeros or non-finite values there: calibrate with real frames, or give the node precision 'fp16'."
        )
    return float(amax)


def check_channel_ranges(name: str, ranges: Sequence[float] | None, channels: int) -> None:
    """The weight ranges of a convolution: one usable range per output channel."""
    if ranges is None:
        check_range(name, "weight_dynamic_ranges", None)
        return
    if len(ranges) != channels:
        raise CalibrationError(
            f"Node {name!r}: weight_dynamic_ranges must have one range per output channel ({channels}), got "
            f"{len(ranges)}. Calibrate this graph again: the ranges belong to another one."
        )
    for channel, amax in enumerate(ranges):
        if not usable_range(amax):
            raise CalibrationError(
                f"Node {name!r}: weight_dynamic_ranges[{channel}] must be finite and > 0, got {amax!r}. A "
                "channel whose weights are all zero gives the same integers with any positive range: use 1.0."
            )


def to_half(name: str, what: str, tensor: torch.Tensor) -> torch.Tensor:
    """`tensor` rounded to float16 (half to even); finite values beyond float16 raise OverflowedError."""
    if tensor.dtype == torch.float16:
        return tensor
    half = tensor.to(torch.float16)
    if bool((torch.isinf(half) & torch.isfinite(tensor)).any()):
        raise OverflowedError(
            f"Layer {name!r}: {what} must fit in float16 (largest value 65504), got "
            f"{tensor.abs().max().item():g}. Rescale the model, or give the layer precision 'fp32'."
        )
    return half


def result_dtype(output_precision: str) -> torch.dtype:
    """dtype of a result: unrounded values are carried in float32."""
    return torch.float16 if output_precision == "fp16" else torch.float32


def relu_gradient(grad: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
    """The gradient behind a ReLU, from its `output`: zero where that is, as torch has it; NaN passes."""
    return torch.where(output <= 0, grad.new_zeros(()), grad)


def reject_integer_backward(name: str, precision: str, output_precision: str) -> None:
    """Gradients are defined for float32 arithmetic only."""
    if precision != "fp32" or output_precision != "fp32":
        raise ScnError(
            f"Layer {name!r}: gradients need precision 'fp32' and output_precision 'fp32', got {precision!r} "
            f"and {output_precision!r}. Train the float graph, before quant.calibrate; run calibrated graphs "
            "under torch.no_grad()."
        )
