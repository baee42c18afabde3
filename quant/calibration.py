# SPDX-License-Identifier: Apache-2.0
"""Measure the ranges of a captured graph on frames, and write them and the precisions into the graph."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from torch.fx import GraphModule

from quant import CONSUMERS, METHODS, OUTLIERS
from quant.precision import PrecisionSpec, default_precisions, output_precisions, resolve, write_precisions
from quant.ranges import (
    LayerRanges,
    quantizable,
    rounded_weight,
    weight_ranges,
    write_ranges,
)
from quant.recorder import Recorder, record
from quant.selection import input_ranges
from scn_fx.errors import CalibrationError, CalibrationWarning

__all__ = ["CalibrationResult", "calibrate"]


@dataclass(frozen=True)
class CalibrationResult:
    """What a calibration found; the graph itself holds the same ranges and precisions.

    Attributes:
        method: one of METHODS.
        frames: number of frames that the ranges come from (without those that were left out).
        ranges: ranges of each convolution and Add, by layer name.
        largest: largest magnitude seen at each layer's inputs, by layer name, in operand order; a range below
            it clips.
        precisions: precision of each layer, by name.
        output_precisions: output precision of each layer, by name.
        seconds: wall time.
        warnings: what `calibrate` has warned of, as texts.
    """

    method: str
    frames: int
    ranges: dict[str, LayerRanges]
    largest: dict[str, tuple[float, ...]]
    precisions: dict[str, str]
    output_precisions: dict[str, str]
    seconds: float
    warnings: tuple[str, ...] = ()


def calibrate(
    graph: GraphModule,
    frames: Iterable[Sequence[Any]],
    *,
    method: str = "mse",
    percentile: float = 99.99,
    num_bins: int = 2048,
    precision: PrecisionSpec = None,
    outliers: str = "drop",
    consumers: str = "aware",
    cache: str | Path | None = None,
    progress: bool | None = None,
) -> CalibrationResult:
    """Find the range of every value that feeds a convolution or an Add; write ranges and precisions.

    The graph runs in float32 on each frame (its features rounded to float16 first, as the engine does). A
    value has one range, whoever reads it; only operands of Adds before a ReLU may have their own. Weights
    always take their largest magnitude per output channel: they are known completely, have no outlier frames
    to clip, and the int8 weight of every engine then stays the same for every method.

    Args:
        graph: a captured graph; ranges it already has are replaced.
        frames: the tensors that the graph takes, in order, for each frame: features float [N, C], indices
            int32 [N, 4]. Any iterable, read once; a few hundred key frames from different places serve better
            than consecutive ones.
        method: "max" (largest magnitude), "percentile" (of the non-zero magnitudes), "mse" (least squared
            error of the quantised histogram) or "entropy" (least Kullback-Leibler divergence).
        percentile: for method "percentile", in percent: above 1, at most 100.
        num_bins: least histogram bins below a value's largest magnitude, at least 256; up to twice as many
            are used.
        precision: overrides on the default precisions by layer-name pattern, or one word; see
            `quant.set_precision`.
        outliers: what becomes of voxels and frames with feature values that nothing else comes near (see
            `quant.outliers`): "drop" leaves them out, "keep" uses them. A warning names them either way.
        consumers: "aware" fits the ranges of an Add before a ReLU to what the ReLU leaves of its operands,
            both together (see `quant.selection`); "ignore" gives every value one range for all readers.
        cache: where to write the calibration cache (JSON) as well.
        progress: True for a progress bar, False for none, None for one on a terminal; it needs rich.

    Warns (CalibrationWarning) of outliers, of one frame alone or frames that are alike, and of layers whose
    range one frame alone sets.

    Raises:
        CalibrationError: no frames, a frame that does not fit the graph, a layer whose input is zero in all
            frames, unknown method or precision. The graph is unchanged after any error.
        NonFiniteError: NaN or infinity in the features or behind any layer; names frame and layer.
    """
    began = time.perf_counter()
    _check_options(graph, frames, method, percentile, num_bins, outliers, consumers, cache)
    chosen = resolve(graph, precision, default_precisions(graph))
    outputs = output_precisions(graph, chosen)
    recorder = Recorder(graph, method, num_bins)
    weights = {
        layer.name: weight_ranges(layer, rounded_weight(layer).abs().amax(dim=(1, 2, 3, 4)))
        for layer in quantizable(graph)
        if layer.kind == "convolution"
    }
    count, findings = record(graph, frames, recorder, outliers, progress)
    inputs = input_ranges(graph, recorder.statistics, method, percentile, consumers)
    ranges = {name: LayerRanges(found, weights.get(name)) for name, found in inputs.items()}
    largest = {
        layer.name: tuple(recorder.largest[node] for node in layer.inputs) for layer in quantizable(graph)
    }
    write_ranges(graph, ranges, method, count)
    write_precisions(graph, chosen, outputs)
    if cache is not None:
        from quant.cache import save_cache

        save_cache(graph, cache)
    for finding in findings:
        warnings.warn(finding, CalibrationWarning, stacklevel=2)
    seconds = time.perf_counter() - began
    return CalibrationResult(method, count, ranges, largest, chosen, outputs, seconds, tuple(findings))


def _check_options(
    graph: GraphModule,
    frames: object,
    method: str,
    percentile: float,
    num_bins: int,
    outliers: str,
    consumers: str,
    cache: str | Path | None,
) -> None:
    if method not in METHODS:
        raise CalibrationError(
            f"Unknown calibration method {method!r}; expected one of {', '.join(METHODS)}."
        )
    if not isinstance(percentile, Real) or not 0 < percentile <= 100:
        raise CalibrationError(f"percentile must be a number in (0, 100], got {percentile!r}.")
    if percentile <= 1:
        raise CalibrationError(
            f"percentile counts in percent, so {percentile:g} would clip nearly everything. Did you mean "
            f"{100 * percentile:.10g}?"
        )
    if outliers not in OUTLIERS:
        raise CalibrationError(f"Unknown outliers={outliers!r}; expected one of {', '.join(OUTLIERS)}.")
    if consumers not in CONSUMERS:
        raise CalibrationError(f"Unknown consumers={consumers!r}; expected one of {', '.join(CONSUMERS)}.")
    if not isinstance(num_bins, Integral) or num_bins < 256:
        raise CalibrationError(
            "num_bins must be a whole number, at least 256 (the searches start at bin 128), got "
            f"{num_bins!r}."
        )
    if cache is not None and not Path(cache).absolute().parent.is_dir():
        raise CalibrationError(f"The cache {cache} cannot be written: its folder does not exist.")
    if cache is not None and Path(cache).is_dir():
        raise CalibrationError(f"The cache {cache} cannot be written: it is a folder. Name a file in it.")
    if not isinstance(frames, Iterable) and not hasattr(frames, "__getitem__"):  # as a data set has
        raise CalibrationError(
            "frames must be an iterable of (features, indices), such as a list or a generator, got "
            f"{type(frames).__name__}."
        )
    if not quantizable(graph):
        raise CalibrationError("The graph has no convolution and no Add: there is nothing to calibrate.")
