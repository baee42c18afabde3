# SPDX-License-Identifier: Apache-2.0
"""The ways to quantise that the tables compare, each from the same statistics and frames."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import fx

from scn_fx import quant
from scn_fx.errors import ArgumentError, CalibrationWarning
from scn_fx.quant.calibration import ranges_by
from scn_fx.quant.precision import default_precisions, output_precisions, write_precisions
from scn_fx.quant.range_options import RangeOptions
from scn_fx.quant.ranges import write_ranges
from scn_fx.quant.recorder import Recorder, record
from scn_fx.quant.statistics import Statistics

__all__ = ["VARIANTS", "Variant", "choose", "merged", "quantised", "statistics_of"]

_BINS = 2048
_PERCENTILE = 99.99
_TRAINING = {"steps": 600, "lr": 2e-4}


@dataclass(frozen=True)
class Variant:
    """One line of a table."""

    name: str
    method: str
    consumers: str = "aware"
    weights: str | None = None
    steps: tuple[str, ...] = ()
    """What is done to weights, in this order: "equalise" (before the ranges), "bias", "round", "train"."""


VARIANTS = (
    *(Variant(f"{method}, plain", method, "ignore", "max") for method in quant.METHODS),
    *(Variant(f"{method}, largest weights", method, weights="max") for method in quant.METHODS[1:]),
    *(Variant(method, method) for method in quant.METHODS),
    Variant("mse + bias", "mse", steps=("bias",)),
    Variant("mse + equalise", "mse", steps=("equalise",)),
    Variant("mse + round", "mse", steps=("round",)),
    Variant("max + round", "max", steps=("round",)),
    Variant("entropy + round", "entropy", steps=("round",)),
    Variant("mse + equalise + round", "mse", steps=("equalise", "round")),
    Variant("mse + QAT", "mse", steps=("train",)),
    Variant("mse + equalise + round + QAT", "mse", steps=("equalise", "round", "train")),
)


def choose(names: Sequence[str]) -> tuple[Variant, ...]:
    """The variants of these names; all if there are none. ArgumentError for an unknown name."""
    known = {variant.name: variant for variant in VARIANTS}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ArgumentError(f"There is no variant {unknown[0]!r}; there are: {'; '.join(known)}.")
    return tuple(known[name] for name in names) or VARIANTS


def statistics_of(graph: fx.GraphModule, frame: Sequence[Any]) -> Statistics:
    """What one frame shows of the values of a graph."""
    recorder = Recorder(graph, "mse", _BINS)
    record(graph, [frame], recorder, "drop", False)
    return recorder.statistics


def merged(graph: fx.GraphModule, several: Sequence[Statistics]) -> Statistics:
    """The statistics of all frames together."""
    recorder = Recorder(graph, "mse", _BINS)
    for one in several:
        recorder.statistics.merge(one)
    return recorder.statistics


def quantised(
    graph: fx.GraphModule, statistics: Statistics, frames: Sequence[Sequence[Any]], variant: Variant
) -> fx.GraphModule:
    """A copy of a float graph, quantised; `statistics` are those of the `frames`."""
    made = copy.deepcopy(graph)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CalibrationWarning)
        if "equalise" in variant.steps:
            quant.equalize(made, frames, progress=False)
            statistics = merged(made, [statistics_of(made, frame) for frame in frames])
        _write(made, statistics, variant, len(frames))
        if "bias" in variant.steps:
            quant.correct_bias(made, frames, progress=False)
        if "round" in variant.steps:
            quant.round_weights(made, frames, progress=False)
        if "train" in variant.steps:
            quant.finetune(made, graph, frames, progress=False, **_TRAINING)
    return made


def _write(graph: fx.GraphModule, statistics: Statistics, variant: Variant, frames: int) -> None:
    options = RangeOptions(variant.method, _PERCENTILE, variant.consumers, variant.weights)
    ranges = ranges_by(graph, statistics, options)
    chosen = default_precisions(graph)
    write_ranges(graph, ranges, variant.method, frames)
    write_precisions(graph, chosen, output_precisions(graph, chosen))
