# SPDX-License-Identifier: Apache-2.0
"""Bias correction: what quantisation adds to the outputs of a channel on average, its bias takes away."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import GraphModule

from scn_fx.graph import Layer
from scn_fx.operators.activations import NO_ACTIVATION
from scn_fx.quant.changes import set_bias
from scn_fx.quant.decibels import decibels
from scn_fx.quant.few_frames import few_frames
from scn_fx.quant.layer_choice import int8_convolutions
from scn_fx.quant.layer_samples import Outputs, outputs_of, target
from scn_fx.quant.lockstep import Lockstep, PairedInput
from scn_fx.quant.progress import progress_bar
from scn_fx.quant.working_copy import working_copy

__all__ = ["BiasReport", "LayerBias", "correct_bias"]

_PASSES = 10  # behind a ReLU, where the mean depends on the bias that is sought


@dataclass(frozen=True)
class LayerBias:
    """What bias correction did to one layer.

    Attributes:
        largest_change: of any channel's bias, in units of the layer's output.
        sqnr_before, sqnr_after: signal to noise of the layer's output in decibels, on the same sites.
    """

    largest_change: float
    sqnr_before: float
    sqnr_after: float


@dataclass(frozen=True)
class BiasReport:
    """What `correct_bias` did to each layer, by name in topological order; how many frames; in seconds."""

    layers: dict[str, LayerBias]
    frames: int
    seconds: float


def correct_bias(
    graph: GraphModule,
    frames: Iterable[Sequence[Any]],
    *,
    layers: Sequence[str] | str = "*",
    reference: GraphModule | None = None,
    frames_limit: int = 16,
    outliers: str = "drop",
    progress: bool | None = None,
) -> BiasReport:
    """Shift the bias of each int8 convolution by its channels' mean errors, one layer after the other.

    Each layer is corrected with the layers before it corrected (the empirical bias correction of Nagel et al.
    2019, arXiv:1906.04721, section 4.2). Where a ReLU follows, also one behind an Add, errors count only
    where they pass it. A convolution without a bias gets one. `quant.round_weights` fits biases as well.

    Args, memory and errors are those of `quant.round_weights`; all sites of the frames are used.
    """
    began = time.perf_counter()
    chosen = int8_convolutions(graph, layers)
    tensors = few_frames(graph, frames, frames_limit, outliers)
    found: dict[str, LayerBias] = {}
    with progress_bar(progress, len(chosen), "Correcting") as bar, working_copy(graph) as copied:
        for layer, inputs in Lockstep(copied, tensors, reference).convolutions():
            if layer.name in chosen:
                found[layer.name] = _correct(layer, inputs)
                bar.step()
    return BiasReport(found, len(tensors), time.perf_counter() - began)


def _correct(layer: Layer, inputs: Sequence[PairedInput]) -> LayerBias:
    wanted = [outputs_of(layer, frame) for frame in inputs]
    sums = [_quantised_sums(layer, frame) for frame in inputs]
    sites = max(sum(len(each) for each in sums), 1)
    width = layer.weight.shape[0]
    shift = torch.zeros(width, dtype=torch.float64, device=layer.weight.device)
    for _ in range(_PASSES if wanted[0].relu else 1):
        missing = torch.zeros_like(shift)
        for each, got in zip(wanted, sums, strict=True):
            shifted = got + shift.float()
            missing += (target(each, shifted) - shifted).sum(0, dtype=torch.float64)
        shift += missing / sites
    present = torch.zeros_like(shift) if layer.bias is None else layer.bias.half().double()
    bias = (present + shift).half().double()
    set_bias(layer, bias)
    change = bias - present
    signal = sum(each.signal() for each in wanted)
    return LayerBias(
        largest_change=float(change.abs().max()),
        sqnr_before=decibels(signal, _noise(wanted, sums, torch.zeros_like(change))),
        sqnr_after=decibels(signal, _noise(wanted, sums, change)),
    )


def _quantised_sums(layer: Layer, frame: PairedInput) -> torch.Tensor:
    """What the layer computes in int8 before the activation, float32 [M, out]."""
    kwargs = {**layer.node.kwargs, "activation": NO_ACTIVATION, "output_precision": "int8"}
    result: torch.Tensor = layer.node.target(  # type: ignore[operator]
        frame.features, layer.weight, layer.bias, frame.kernel_map, **kwargs
    )
    return result


def _noise(wanted: Sequence[Outputs], sums: Sequence[torch.Tensor], change: torch.Tensor) -> float:
    return sum(each.noise(got + change.float()) for each, got in zip(wanted, sums, strict=True))
