# SPDX-License-Identifier: Apache-2.0
"""Whether ranges from elsewhere fit the graph: its weights, and the values that frames bring.

Ranges that are too small clip; ranges that are too large waste levels (each factor of two costs a bit, 6 dB).
Both come of ranges that were found before the BatchNorms were folded, or for other weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from scn_fx.quant.ranges import LayerRanges, quantizable, rounded_weight

if TYPE_CHECKING:
    from torch.fx import GraphModule, Node

__all__ = ["check_inputs", "check_readers", "check_weights"]

# Methods that clip weights go down to about half of the largest.
_TOO_SMALL = 2.0
# No method goes above it; ranges that were trained along may have stayed somewhat behind shrinking weights.
_TOO_LARGE = 1.5
# Methods differ by up to this for activations, whose tails are heavy.
_INPUTS = 3.0
# Channels whose weights are this small beside the layer's largest hardly count.
_FAINT = 1e-3
_SHOWN = 5


@dataclass(frozen=True)
class _Misfit:
    layer: str
    ratio: float
    """Range over what it should be."""

    def __str__(self) -> str:
        if self.ratio >= 1:
            return f"{self.layer} ({self.ratio:.3g} times too large)"
        return f"{self.layer} ({1 / self.ratio:.3g} times too small)"


def check_weights(graph: GraphModule, ranges: Mapping[str, LayerRanges]) -> str | None:
    """What to say of weight ranges that are too small or too large for the graph's weights, or None."""
    found = [layer for layer in quantizable(graph) if layer.spec.weighted and layer.name in ranges]
    misfits = []
    for layer in found:
        largest = rounded_weight(layer).abs().amax(dim=(1, 2, 3, 4)).double().cpu().numpy()
        amax = np.array(ranges[layer.name].weight, np.float64)
        if len(amax) > 1 and (amax == amax[0]).all():  # one range for the whole weight
            amax, largest = amax[:1], largest.max(keepdims=True)
        live = largest > _FAINT * largest.max()
        if not live.any():
            continue
        ratios = amax[live] / largest[live]
        small, large = float(ratios.min()), float(ratios.max())
        if small * _TOO_SMALL < 1 or large > _TOO_LARGE:
            misfits.append(_Misfit(layer.name, small if 1 / small > large else large))
    if not misfits:
        return None
    return (
        f"The weight ranges of {len(misfits)} of {len(found)} convolutions do not fit their weights, at the "
        f"worst channel: {_listed(misfits)}. Too small ranges clip, too large ones waste levels. Was the "
        "checkpoint calibrated before its BatchNorms were folded, or with other weights? Calibrate the "
        "folded model anew."
    )


def check_readers(graph: GraphModule, ranges: Mapping[str, LayerRanges]) -> str | None:
    """What to say of convolutions that read one value with different ranges, or None."""
    readers: dict[Node, list[tuple[float, str]]] = {}
    for layer in quantizable(graph):
        # An Add's range may be one for both operands, and so larger than either needs.
        if layer.spec.weighted and layer.name in ranges:
            readers.setdefault(layer.inputs[0], []).append((ranges[layer.name].inputs[0], layer.name))
    apart = [(min(values), max(values)) for values in readers.values()]
    texts = [
        f"{low[1]} ({low[0]:.6g}) and {high[1]} ({high[0]:.6g})"
        for low, high in apart
        if high[0] > _INPUTS * low[0]
    ]
    if not texts:
        return None
    return (
        f"Layers that read one and the same value have input ranges far apart: {'; '.join(texts[:_SHOWN])}. "
        "At least one of them was calibrated in another model; calibrate anew."
    )


def check_inputs(
    graph: GraphModule, ranges: Mapping[str, LayerRanges], frames: Iterable[Sequence[Any]]
) -> str | None:
    """What to say of input ranges that are far from those of the default method on `frames`, or None."""
    from scn_fx.quant.recorder import Recorder, record

    recorder = Recorder(graph, "mse", 2048)
    record(graph, frames, recorder, "drop", False)
    own = recorder.amaxes(99.99)
    misfits = []
    for layer in quantizable(graph):
        if layer.name not in ranges:
            continue
        amaxes = ranges[layer.name].inputs
        # One range for both operands of an Add is right if it fits the larger of them.
        wanted = [own[node] for node in layer.inputs]
        shared = len(set(amaxes)) == 1
        pairs = [(amaxes[0], max(wanted))] if shared else list(zip(amaxes, wanted, strict=True))
        worst = max((amax / value for amax, value in pairs), key=lambda ratio: max(ratio, 1 / ratio))
        if max(worst, 1 / worst) > _INPUTS:
            misfits.append(_Misfit(layer.name, worst))
    if not misfits:
        return None
    return (
        f"The input ranges of {len(misfits)} of {len(ranges)} layers are far from what the frames bring: "
        f"{_listed(misfits)}. Was the checkpoint calibrated with other weights, or on features in other "
        "units? Calibrate anew."
    )


def _listed(misfits: list[_Misfit]) -> str:
    return ", ".join(map(str, misfits[:_SHOWN])) + (", ..." if len(misfits) > _SHOWN else "")
