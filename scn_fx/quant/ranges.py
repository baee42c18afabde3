# SPDX-License-Identifier: Apache-2.0
"""The ranges of one graph as plain numbers: what calibration, caches and checkpoints write into its nodes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scn_fx.errors import CalibrationError, OverflowedError
from scn_fx.graph import Layer, layers, set_all, set_metadata
from scn_fx.graph_nodes import values_of
from scn_fx.ranges import SMALLEST_RANGE, USABLE_RANGE, to_float32, usable_range

if TYPE_CHECKING:
    import torch
    from torch.fx import GraphModule

__all__ = [
    "LayerRanges",
    "checked_range",
    "quantizable",
    "range_keywords",
    "read_ranges",
    "weight_ranges",
    "write_ranges",
]

# Range given to an output channel whose weights are all zero: every positive range represents it exactly.
ZERO_CHANNEL_RANGE = 1.0


@dataclass(frozen=True)
class LayerRanges:
    """Ranges (amax: the magnitude that maps to 127) of one layer, as Python floats that are exact in float32.

    Attributes:
        inputs: one range for a convolution's features; two, in operand order, for an Add.
        weight: one range per output channel of a convolution; None for an Add.
    """

    inputs: tuple[float, ...]
    weight: tuple[float, ...] | None = None


def quantizable(graph: GraphModule) -> list[Layer]:
    """The layers that have ranges and a precision: convolutions and Adds, in topological order."""
    return [layer for layer in layers(graph) if layer.spec.quantisable]


def checked_range(value: float, what: str) -> float:
    """`value` rounded to float32, if it can serve as a range; CalibrationError naming `what` otherwise."""
    amax = to_float32(value)
    if not math.isfinite(amax):
        raise CalibrationError(f"{what}: the range must be a finite number, got {value}.")
    if amax < SMALLEST_RANGE:
        raise CalibrationError(
            f"{what}: the range must be positive ({USABLE_RANGE}), got {value}. All values that it was taken "
            "from were zero or next to zero."
        )
    if not usable_range(amax):
        raise CalibrationError(
            f"{what}: the range must be {USABLE_RANGE}, got {value}. Rescale the model, or exclude the "
            "layer from quantisation."
        )
    return amax


def rounded_weight(layer: Layer) -> torch.Tensor:
    """Weight of a convolution, rounded to float16 as engines store it: float32 [out, kz, ky, kx, in].

    Raises OverflowedError if a weight does not fit, CalibrationError if weight or bias hold NaN or infinity.
    """
    weight = layer.weight.detach().float()
    for what, values in (("weight", weight), ("bias", layer.bias)):
        if values is not None and not bool(values.isfinite().all()):
            raise CalibrationError(
                f"{layer.name}: the {what} holds NaN or infinite values. Check the checkpoint."
            )
    rounded = weight.half().float()
    if not bool(rounded.isfinite().all()):
        raise OverflowedError(
            f"{layer.name}: a weight of magnitude {float(weight.abs().max()):.6g} does not fit in float16 "
            "(at most 65504). Rescale the layer, or exclude it from quantisation."
        )
    return rounded


def weight_ranges(layer: Layer, amax: torch.Tensor) -> tuple[float, ...]:
    """Range per output channel from the channels' largest magnitudes (any shape of `out` values)."""
    channels = amax.flatten().tolist()
    return tuple(
        ZERO_CHANNEL_RANGE
        if value == 0.0
        else checked_range(value, f"{layer.name}, weight of output channel {channel}")
        for channel, value in enumerate(channels)
    )


def read_ranges(layer: Layer) -> LayerRanges | None:
    """The ranges that a layer's node holds, or None if it is not calibrated."""
    values = {each: layer.argument(each.attribute) for each in layer.spec.ranges}
    if any(value is None for value in values.values()):
        return None
    inputs = tuple(float(v) for each in layer.spec.input_ranges for v in values_of(values[each]))
    weight = layer.spec.weight_range
    return LayerRanges(inputs, None if weight is None else tuple(float(v) for v in values[weight]))


def range_keywords(layer: Layer, ranges: LayerRanges) -> dict[str, Any]:
    """The keyword arguments of a layer's node, and attributes in files, that hold its ranges."""
    inputs = list(ranges.inputs)
    found: dict[str, Any] = {}
    for each in layer.spec.ranges:
        if each.per_channel:
            found[each.attribute] = list(ranges.weight or ())
        elif any(operand.name == each.operand and operand.many for operand in layer.spec.operands):
            found[each.attribute], inputs = inputs, []
        else:
            found[each.attribute] = inputs.pop(0)
    return found


def write_ranges(graph: GraphModule, found: Mapping[str, LayerRanges], method: str, frames: int) -> None:
    """Put ranges into the nodes of the layers named in `found`, and their origin into the metadata."""
    changes: dict[Layer, dict[str, Any]] = {}
    for layer in quantizable(graph):
        ranges = found.get(layer.name)
        if ranges is not None:
            changes[layer] = range_keywords(layer, ranges)
    set_all(graph, changes)
    set_metadata(graph, calibration={"method": method, "frames": frames})
