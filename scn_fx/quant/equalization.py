# SPDX-License-Identifier: Apache-2.0
"""Cross-layer equalisation: channel factors that make all channels of a value use the int8 levels."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import GraphModule

from scn_fx.errors import CalibrationError
from scn_fx.graph import Layer, layers, set_all, set_metadata
from scn_fx.quant.changes import set_bias, set_weight
from scn_fx.quant.channel_factors import best_factors
from scn_fx.quant.channel_statistics import ChannelStatistics
from scn_fx.quant.few_frames import few_frames
from scn_fx.quant.interpreter import FloatInterpreter
from scn_fx.quant.progress import progress_bar
from scn_fx.quant.ranges import quantizable
from scn_fx.quant.scale_groups import ScaleGroup, scale_groups
from scn_fx.quant.working_copy import working_copy

__all__ = ["EqualizationReport", "GroupFactors", "equalize"]


@dataclass(frozen=True)
class GroupFactors:
    """Factors of one group of values.

    Attributes:
        producers: names of the convolutions whose output channels were divided by the factors.
        consumers: names of the convolutions whose input channels were multiplied by them.
        smallest, largest: factor of any channel; their geometric mean is 1.
        gain: expected fall of the quantisation noise of the group, in decibels, by the model of
            `quant.channel_factors`.
    """

    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    smallest: float
    largest: float
    gain: float


@dataclass(frozen=True)
class EqualizationReport:
    """What `equalize` did to each group of values, in topological order; how many frames; in seconds."""

    groups: tuple[GroupFactors, ...]
    frames: int
    seconds: float


def equalize(
    graph: GraphModule,
    frames: Iterable[Sequence[Any]],
    *,
    frames_limit: int = 16,
    outliers: str = "drop",
    progress: bool | None = None,
) -> EqualizationReport:
    """Scale channels between layers so that int8 loses less; the float network stays the same.

    A value has one range for all of its channels, so a channel that is small beside the others has few
    levels. Where a value is made by convolutions (with a ReLU or none), perhaps joined by residual Adds, and
    read by convolutions and those Adds alone, its channels can be divided by factors that the convolutions
    reading it take back (Nagel et al. 2019, arXiv:1906.04721, section 4.1). The factors are those of the
    least expected noise, see `quant.channel_factors`.

    Ranges belong to the values of before, so the graph is a float32 graph afterwards: calibrate it next.

    Args:
        graph: a captured graph, calibrated or not; changed in place. After any error it is unchanged.
        frames: as for `quant.calibrate`.
        frames_limit: most frames to use: of a sequence spread evenly, of another iterable the first. Rows of
            their values are sampled; memory holds no more than one frame's values at a time.
        outliers: "drop" or "keep", as for `quant.calibrate`.
        progress: True for a progress bar, False for none, None for one on a terminal.

    Raises:
        CalibrationError: no group of values can be scaled, no frames, or a frame that does not fit.
        NonFiniteError: NaN or infinity in the features or behind a layer.
        OverflowedError: a scaled weight or bias does not fit in float16.
    """
    began = time.perf_counter()
    groups = scale_groups(graph)
    if not groups:
        raise CalibrationError(
            "No value of the graph can be scaled: each is read by something other than convolutions, Adds "
            "and ReLUs, or tied by an Add to one that is. Leave this step out."
        )
    tensors = few_frames(graph, frames, frames_limit, outliers)
    statistics = ChannelStatistics(groups)
    interpreter = FloatInterpreter(graph, statistics.observe)
    with progress_bar(progress, len(tensors), "Equalising") as bar, torch.no_grad():
        for frame in tensors:
            interpreter.run(*frame)
            bar.step()
    found = []
    with working_copy(graph) as copied:
        mine = {layer.name: layer for layer in layers(copied)}
        for group in groups:
            factors, gain = best_factors(group, statistics)
            _scale(group, factors, mine)
            found.append(_report(group, factors, gain))
    _forget_ranges(graph)
    return EqualizationReport(tuple(found), len(tensors), time.perf_counter() - began)


def _scale(group: ScaleGroup, factors: torch.Tensor, mine: dict[str, Layer]) -> None:
    """Divide what the group's producers make by `factors` [channels], and let its consumers take it back.

    A layer may be scaled twice, as a consumer of one group and a producer of another, and rounds to float16
    each time: half a unit in the last place more than once.
    """
    for layer in group.producers:
        own = mine[layer.name]
        factors = factors.to(own.weight.device)
        set_weight(own, own.weight.double() / factors.reshape(-1, 1, 1, 1, 1))
        if own.bias is not None:
            set_bias(own, own.bias.double() / factors)
    for layer in group.consumers:
        own = mine[layer.name]
        set_weight(own, own.weight.double() * factors.to(own.weight.device))


def _report(group: ScaleGroup, factors: torch.Tensor, gain: float) -> GroupFactors:
    return GroupFactors(
        tuple(layer.name for layer in group.producers),
        tuple(layer.name for layer in group.consumers),
        float(factors.min()),
        float(factors.max()),
        gain,
    )


def _forget_ranges(graph: GraphModule) -> None:
    changes: dict[Layer, dict[str, Any]] = {}
    for layer in quantizable(graph):
        names = [each.attribute for each in layer.spec.ranges]
        changes[layer] = {"precision": "fp32", "output_precision": "fp32", **dict.fromkeys(names)}
    set_all(graph, changes)
    set_metadata(graph, calibration=None)
