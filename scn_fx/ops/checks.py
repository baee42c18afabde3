# SPDX-License-Identifier: Apache-2.0
"""Checks of operands and arguments that all operators word alike."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch

from scn_fx.dimensions import DIMENSIONS
from scn_fx.errors import (
    ArgumentError,
    BoundError,
    CalibrationError,
    MemoryLimitError,
    OverflowedError,
    ScnError,
    SiteError,
)
from scn_fx.geometry import MOST_CHANNELS, MOST_OFFSETS, Triple
from scn_fx.operators.pool import POOLINGS
from scn_fx.ranges import LARGEST_RANGE, SMALLEST_RANGE, USABLE_RANGE, sum_scale, usable_range, usable_scale

__all__ = [
    "FLOATS",
    "FLOATS_TEXT",
    "PRECISIONS",
    "check_axes",
    "check_batch",
    "check_bound",
    "check_channel_ranges",
    "check_channels",
    "check_dense",
    "check_features",
    "check_kernel_map",
    "check_pooling",
    "check_precisions",
    "check_range",
    "check_sites",
    "check_within",
    "common_dtype",
    "result_dtype",
    "shape_text",
    "to_half",
]

PRECISIONS = ("fp32", "fp16", "int8")
FLOATS = (torch.float16, torch.bfloat16, torch.float32)
"""dtypes of features and weights; what autocast brings. bfloat16 is computed with as float32."""
FLOATS_TEXT = "float16, bfloat16 or float32"
MOST_GRIDS = 2**31 - 1  # of a batch


def shape_text(tensor: torch.Tensor) -> str:
    """Shape and dtype of `tensor` for messages."""
    return f"{list(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def check_sites(name: str, indices: torch.Tensor, what: str = "indices") -> None:
    """`indices` must be int32 [N, 4] (batch, z, y, x), or [N, 3] or [N, 2] without the leading axes."""
    if indices.dim() != 2 or indices.shape[1] - 1 not in DIMENSIONS or indices.dtype != torch.int32:
        hint = " Convert them with indices.int()." if not indices.dtype.is_floating_point else ""
        raise SiteError(
            f"Layer {name!r}: {what} must be int32 [N, 4] (batch, z, y, x), in two dimensions [N, 3] (batch, "
            f"y, x), in one [N, 2] (batch, x), got {shape_text(indices)}.{hint}"
        )


def check_axes(name: str, indices: torch.Tensor, grid: Sequence[int]) -> None:
    """The axes of `grid` (z, y, x) that `indices` have no column for must have one cell."""
    lacking = list(grid[: 4 - indices.shape[1]])
    if any(size != 1 for size in lacking):
        raise SiteError(
            f"Layer {name!r}: indices must be int32 [N, 4] (batch, z, y, x) on a grid of {list(grid)}, got "
            f"{shape_text(indices)}. Only axes of one cell may have no column."
        )


def check_features(
    name: str, features: torch.Tensor, what: str = "features", channels: int | None = None
) -> None:
    """`features` must be of `FLOATS`, [N, channels]."""
    width = "C" if channels is None else str(channels)
    if features.dim() != 2 or features.dtype not in FLOATS:
        hint = " Convert them with .float() first." if features.dim() == 2 else ""
        raise SiteError(
            f"Layer {name!r}: {what} must be {FLOATS_TEXT} [N, {width}], got {shape_text(features)}.{hint}"
        )
    if channels is not None and features.shape[1] != channels:
        raise SiteError(
            f"Layer {name!r}: {what} must have {channels} channels, as the layer's weight does, got "
            f"{shape_text(features)}. Give it features of the width that the model was captured with."
        )
    check_channels(name, what, features.shape[1])


def check_channels(name: str, what: str, channels: int) -> None:
    """`what` must have a number of channels that kernels take; one that only a run knows passes."""
    if isinstance(channels, int) and not 1 <= channels <= MOST_CHANNELS:
        raise SiteError(f"Layer {name!r}: {what} must have 1 to {MOST_CHANNELS} channels, got {channels}.")


def check_batch(name: str, batch_size: int) -> None:
    """`batch_size` counts grids: batch indices are int32."""
    if not 1 <= batch_size <= MOST_GRIDS:
        raise ArgumentError(
            f"Layer {name!r}: batch_size must be 1 to {MOST_GRIDS}, got {batch_size}. It counts the frames "
            "whose sites the indices hold."
        )


def check_bound(name: str, output_bound: int) -> None:
    """`output_bound` counts sites."""
    if output_bound < 0:
        raise ArgumentError(f"Layer {name!r}: output_bound must not be negative, got {output_bound}.")


def check_within(name: str, rows: int, output_bound: int) -> None:
    """A map of `rows` output sites must keep its bound."""
    if rows > output_bound:
        raise BoundError(
            f"Layer {name!r} has {rows} output sites, more than its output_bound of {output_bound}. Capture "
            f"the model with an output_bound of at least {rows}, or feed fewer voxels."
        )


def check_dense(name: str, batch_size: int, channels: int, shape: Triple) -> None:
    """A dense map needs a size that can be numbered; whether the machine has the memory, a run finds out."""
    cells = batch_size * prod(shape) * (channels if isinstance(channels, int) else 1)
    if cells * 4 >= 2**63:
        raise MemoryLimitError(
            f"Layer {name!r}: a dense map [{batch_size}, {channels}, {', '.join(map(str, shape))}] has more "
            "bytes than 63 bits can number. Use larger voxels, a smaller range or a smaller batch."
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
    columns = kernel_map.shape[1]
    if isinstance(columns, int) and not 1 <= columns <= MOST_OFFSETS:
        raise SiteError(
            f"Layer {name!r}: a kernel map has 1 to {MOST_OFFSETS} columns, one per kernel offset, got "
            f"{shape_text(kernel_map)}."
        )


def check_pooling(name: str, kind: str) -> None:
    """`kind` must be a way of pooling."""
    if kind not in POOLINGS:
        raise ArgumentError(f"Layer {name!r}: kind must be one of {', '.join(POOLINGS)}, got {kind!r}.")


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


def check_range(name: str, what: str, amax: float | None) -> float:
    """The range `amax` of one tensor, or CalibrationError when it is missing or unusable."""
    if amax is None:
        raise CalibrationError(
            f"Node {name!r} computes in int8 but has no {what}. Run quant.calibrate(graph, frames) first, or "
            "give the node precision 'fp16'."
        )
    if not usable_range(amax):
        raise CalibrationError(
            f"Node {name!r}: {what} must be {USABLE_RANGE}, got {amax!r}. Its calibration frames gave next "
            "to nothing but zeros, or values that are not finite: calibrate with real frames, or give the "
            "node precision 'fp16'."
        )
    return float(amax)


def check_channel_ranges(name: str, ranges: Sequence[float] | None, channels: int, input_amax: float) -> None:
    """The weight ranges of a convolution: one per output channel, usable alone and with the input's."""
    if ranges is None:
        check_range(name, "weight_dynamic_ranges", None)
        return
    if len(ranges) != channels:
        raise CalibrationError(
            f"Node {name!r}: weight_dynamic_ranges must have one range per output channel ({channels}), got "
            f"{len(ranges)}. Calibrate this graph again: the ranges belong to another one."
        )
    for channel, amax in enumerate(ranges):
        if not (SMALLEST_RANGE <= amax <= LARGEST_RANGE or usable_range(amax)):
            raise CalibrationError(
                f"Node {name!r}: weight_dynamic_ranges[{channel}] must be {USABLE_RANGE}, got {amax!r}. A "
                "channel whose weights are all zero gives the same integers with any of them: use 1.0."
            )
    for amax in (min(ranges), max(ranges)):
        if not usable_scale(sum_scale(input_amax, amax)):
            raise CalibrationError(
                f"Node {name!r}: the dynamic ranges of its input, {input_amax:.7g}, and of its weight for "
                f"output channel {list(ranges).index(amax)}, {amax:.7g}, have a product that float32 cannot "
                "scale sums by. Calibrate the graph again."
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


def common_dtype(tensors: Sequence[torch.Tensor]) -> torch.dtype:
    """float16 if all `tensors` are, float32 as soon as one is."""
    dtype = tensors[0].dtype
    for each in tensors[1:]:
        dtype = torch.promote_types(dtype, each.dtype)
    return dtype


def result_dtype(output_precision: str) -> torch.dtype:
    """dtype of a result: unrounded values are carried in float32."""
    return torch.float16 if output_precision == "fp16" else torch.float32
