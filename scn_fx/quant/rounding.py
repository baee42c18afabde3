# SPDX-License-Identifier: Apache-2.0
"""Adaptive rounding: integers of the weights that make each layer's output, not its weights, nearly exact."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch.fx import GraphModule

from scn_fx.errors import CalibrationError
from scn_fx.graph import Layer
from scn_fx.quant.changes import set_bias, set_weight
from scn_fx.quant.decibels import decibels
from scn_fx.quant.few_frames import few_frames
from scn_fx.quant.integers import weights_of
from scn_fx.quant.layer_choice import int8_convolutions
from scn_fx.quant.layer_fit import FitSettings, LayerFit
from scn_fx.quant.layer_samples import Samples, gather
from scn_fx.quant.lockstep import Lockstep
from scn_fx.quant.progress import progress_bar
from scn_fx.quant.working_copy import working_copy

__all__ = ["LayerRounding", "RoundingReport", "round_weights"]

_HELD_OUT = 8  # each so many rows judge the result and are not fitted


@dataclass(frozen=True)
class LayerRounding:
    """What rounding did to one layer.

    Attributes:
        rows: output sites that were fitted.
        changed: share of the integers that are not those of rounding to nearest, 0 to 1.
        sqnr_before, sqnr_after: signal to noise of the layer's output in decibels, with the real quantised
            inputs that the improved layers before it make, on sites that were not fitted.
        kept: whether the layer stayed as it was, because the fit was no better on those sites.
        coarse_channels: output channels left alone, because float16 cannot hold all of their integers.
    """

    rows: int
    changed: float
    sqnr_before: float
    sqnr_after: float
    kept: bool
    coarse_channels: tuple[int, ...]


@dataclass(frozen=True)
class RoundingReport:
    """What `round_weights` did to each layer, by name in topological order; how many frames; in seconds."""

    layers: dict[str, LayerRounding]
    frames: int
    seconds: float


def round_weights(
    graph: GraphModule,
    frames: Iterable[Sequence[Any]],
    *,
    layers: Sequence[str] | str = "*",
    reference: GraphModule | None = None,
    frames_limit: int = 16,
    rows_limit: int = 32768,
    reach: int = 1,
    damping: float = 0.01,
    relu_passes: int = 1,
    sweeps: int = 4,
    bias: bool = True,
    outliers: str = "drop",
    progress: bool | None = None,
) -> RoundingReport:
    """Choose the integers of the weights, and the biases, by the error of each layer's output on frames.

    Layer by layer in topological order, the squared difference to the float network's output is minimised
    with the real quantised inputs, so that a layer makes good what layers before it have spoilt (asymmetric
    reconstruction), and behind the ReLU, or the Add and ReLU, that follows. The idea is AdaRound's (Nagel et
    al. 2020, arXiv:2004.10568); the minimum is sought over the integers themselves, see
    `quant.integer_search`. Weights and biases are written as float16 numbers from which every engine finds
    these integers; ranges stay, also under a later `quant.calibrate` with the same weight method.

    Args:
        graph: a calibrated graph; its int8 convolutions are improved, in place. After any error it is
            unchanged.
        frames: as for `quant.calibrate`, from the same places.
        layers: shell-style patterns of layer names; all by default.
        reference: gives the float network's weights: a copy of the graph from before its weights were
            changed. By default the graph itself.
        frames_limit: most frames to use. All of them are in memory together, two values each of the sites of
            one part of the network: about 60 MB for a frame of 80,000 voxels in CenterPoint's encoder. Of a
            sequence they are spread evenly over its length; of another iterable they are the first.
        rows_limit: most output sites of a layer, of all frames together, that are fitted or judge the fit;
            the same in each run. They take rows_limit x kernel volume x input channels bytes.
        reach: how far an integer may lie from its float weight; 1 rounds up or down.
        damping: strength of the pull towards the float weights, as a share of the mean energy of an input.
        relu_passes: how often targets behind a ReLU are set anew, after the first time.
        sweeps: most rounds of coordinate descent after each setting of the targets.
        bias: whether to fit biases too; a convolution without one gets one.
        outliers: "drop" or "keep", as for `quant.calibrate`.
        progress: True for a progress bar, False for none, None for one on a terminal.

    Raises:
        CalibrationError: no int8 layers with ranges, no frames, a frame or reference that does not fit, a
            pattern that matches no layer, an impossible option.
        NonFiniteError: NaN or infinity in the features.
        OverflowedError: a value or a new bias does not fit in float16; names the layer.
    """
    began = time.perf_counter()
    _check_options(rows_limit, reach, damping, relu_passes, sweeps)
    chosen = int8_convolutions(graph, layers)
    tensors = few_frames(graph, frames, frames_limit, outliers)
    settings = FitSettings(reach, damping, relu_passes, sweeps, bias)
    found: dict[str, LayerRounding] = {}
    with progress_bar(progress, len(chosen), "Rounding") as bar, working_copy(graph) as copied:
        for layer, inputs in Lockstep(copied, tensors, reference).convolutions():
            if layer.name in chosen:
                fitted, judged = gather(layer, inputs, rows_limit).split(_HELD_OUT)
                found[layer.name] = _round(layer, fitted, judged, settings)
                bar.step()
    return RoundingReport(found, len(tensors), time.perf_counter() - began)


def _check_options(rows_limit: int, reach: int, damping: float, relu_passes: int, sweeps: int) -> None:
    for what, value, least in (
        ("rows_limit", rows_limit, 2 * _HELD_OUT),
        ("reach", reach, 1),
        ("damping", damping, 0),
        ("relu_passes", relu_passes, 0),
        ("sweeps", sweeps, 0),
    ):
        if not value >= least:
            raise CalibrationError(f"{what} must be at least {least}, got {value!r}.")


def _round(layer: Layer, fitted: Samples, judged: Samples, settings: FitSettings) -> LayerRounding:
    fit = LayerFit(layer, fitted, settings)
    integers, bias = fit.solve()
    before = judged.noise(fit.sums(judged, fit.nearest, fit.bias))
    after = judged.noise(fit.sums(judged, integers, bias))
    kept = not after < before
    if not kept:
        weight = weights_of(integers.t().reshape(layer.weight.shape), fit.ranges)
        coarse = ~fit.fine
        weight[coarse] = layer.weight[coarse].half()
        set_weight(layer, weight)
        if settings.bias:
            set_bias(layer, bias)
    return LayerRounding(
        rows=len(fitted.inputs),
        changed=0.0 if kept else float((integers != fit.nearest).double().mean()),
        sqnr_before=decibels(judged.signal(), before),
        sqnr_after=decibels(judged.signal(), before if kept else after),
        kept=kept,
        coarse_channels=tuple((~fit.fine).nonzero().flatten().tolist()),
    )
