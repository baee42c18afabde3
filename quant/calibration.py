# SPDX-License-Identifier: Apache-2.0
"""Measure the ranges of a captured graph on frames, and write them and the precisions into the graph."""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterable, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.fx import GraphModule, Node

from quant import METHODS
from quant.frames import check_frame, input_spec
from quant.interpreter import FloatInterpreter
from quant.precision import PrecisionSpec, default_precisions, output_precisions, resolve, write_precisions
from quant.progress import progress_bar
from quant.ranges import (
    LayerRanges,
    checked_range,
    quantizable,
    rounded_weight,
    weight_ranges,
    write_ranges,
)
from scn_fx.errors import CalibrationError, MissingPackageError, ScnError

if TYPE_CHECKING:
    from modelopt.torch.quantization.nn import TensorQuantizer

__all__ = ["CalibrationResult", "calibrate"]


@dataclass(frozen=True)
class CalibrationResult:
    """What a calibration found; the graph itself holds the same ranges and precisions.

    Attributes:
        method: one of METHODS.
        frames: number of frames seen.
        ranges: ranges of each convolution and Add, by layer name.
        largest: largest magnitude seen at each layer's inputs, by layer name, in operand order; a range below
            it clips.
        precisions: precision of each layer, by name.
        output_precisions: output precision of each layer, by name.
        seconds: wall time, importing modelopt included.
    """

    method: str
    frames: int
    ranges: dict[str, LayerRanges]
    largest: dict[str, tuple[float, ...]]
    precisions: dict[str, str]
    output_precisions: dict[str, str]
    seconds: float


def calibrate(
    graph: GraphModule,
    frames: Iterable[Sequence[Any]],
    *,
    method: str = "mse",
    percentile: float = 99.99,
    num_bins: int = 2048,
    precision: PrecisionSpec = None,
    cache: str | Path | None = None,
    progress: bool | None = None,
) -> CalibrationResult:
    """Find the range of every value that feeds a convolution or an Add; write ranges and precisions.

    The graph runs in float32 on each frame (its features rounded to float16 first, as the engine does). A
    value has one range, whoever reads it. Weights always take their largest magnitude per output channel:
    they are known completely, have no outlier frames to clip, and the int8 weight of every engine then stays
    the same for every method.

    Args:
        graph: a captured graph; ranges it already has are replaced.
        frames: the tensors that the graph takes, in order, for each frame: features float [N, C], indices
            int32 [N, 4]. Any iterable, read once; a few hundred key frames from different places serve better
            than consecutive ones.
        method: "max" (largest magnitude), "percentile" (of the non-zero magnitudes), "mse" (least squared
            error of the quantised histogram) or "entropy" (least Kullback-Leibler divergence).
        percentile: for method "percentile", in (0, 100].
        num_bins: histogram bins of the first frame's magnitudes, at least 256.
        precision: overrides on the default precisions by layer-name pattern, or one word; see
            `quant.set_precision`.
        cache: where to write the calibration cache (JSON) as well.
        progress: True for a progress bar, False for none, None for one on a terminal; it needs rich.

    Raises:
        CalibrationError: no frames, a frame that does not fit the graph, a layer whose input is zero in all
            frames, unknown method or precision. The graph is unchanged after any error.
        NonFiniteError: NaN or infinity in the features or behind any layer; names frame and layer.
        MissingPackageError: modelopt is not installed.
    """
    began = time.perf_counter()
    _check_options(graph, method, percentile, num_bins, cache)
    chosen = resolve(graph, precision, default_precisions(graph))
    outputs = output_precisions(graph, chosen)
    recorder = _Recorder(graph, method, num_bins)
    weights = {
        layer.name: weight_ranges(layer, recorder.weight_amax(rounded_weight(layer)))
        for layer in quantizable(graph)
        if layer.kind == "convolution"
    }
    count = _run(graph, frames, recorder, progress)
    amaxes = recorder.amaxes(percentile)
    ranges = {
        layer.name: LayerRanges(tuple(amaxes[node] for node in layer.inputs), weights.get(layer.name))
        for layer in quantizable(graph)
    }
    largest = {
        layer.name: tuple(recorder.largest[node] for node in layer.inputs) for layer in quantizable(graph)
    }
    write_ranges(graph, ranges, method, count)
    write_precisions(graph, chosen, outputs)
    if cache is not None:
        from quant.cache import save_cache

        save_cache(graph, cache)
    return CalibrationResult(method, count, ranges, largest, chosen, outputs, time.perf_counter() - began)


def _check_options(
    graph: GraphModule, method: str, percentile: float, num_bins: int, cache: str | Path | None
) -> None:
    if method not in METHODS:
        raise CalibrationError(
            f"Unknown calibration method {method!r}; expected one of {', '.join(METHODS)}."
        )
    if not 0 < percentile <= 100:
        raise CalibrationError(f"percentile must be in (0, 100], got {percentile}.")
    if num_bins < 256:
        raise CalibrationError(
            f"num_bins must be at least 256 (the searches start at bin 128), got {num_bins}."
        )
    if cache is not None and not Path(cache).absolute().parent.is_dir():
        raise CalibrationError(f"The cache {cache} cannot be written: its folder does not exist.")
    if not quantizable(graph):
        raise CalibrationError("The graph has no convolution and no Add: there is nothing to calibrate.")


def _run(
    graph: GraphModule, frames: Iterable[Sequence[Any]], recorder: _Recorder, progress: bool | None
) -> int:
    """Run all frames past the recorder; returns their number."""
    expected = input_spec(graph)
    interpreter = FloatInterpreter(graph, recorder.observe)
    count = 0
    total = len(frames) if isinstance(frames, Sized) else None
    with progress_bar(progress, total) as advance, torch.no_grad():
        for number, frame in enumerate(frames):
            tensors = check_frame(frame, expected, number)
            try:
                interpreter.run(*tensors)
            except ScnError as error:
                raise type(error)(f"Frame {number} (counted from 0): {error}") from error
            count += 1
            advance()
    if count == 0:
        raise CalibrationError(
            "There are no frames. Calibration needs at least one; a few hundred from different places are "
            "usual."
        )
    return count


class _Recorder:
    """One quantizer per value that feeds a convolution or an Add."""

    def __init__(self, graph: GraphModule, method: str, num_bins: int):
        self._modelopt = _import_quantizers()
        self._method = method
        self._readers: dict[Node, list[str]] = {}
        for layer in quantizable(graph):
            for node in layer.inputs:
                self._readers.setdefault(node, []).append(layer.name)
        kind = "max" if method == "max" else "histogram"
        self._quantizers: dict[Node, TensorQuantizer] = {
            node: self._modelopt.input_quantizer(kind, num_bins) for node in self._readers
        }
        self.largest: dict[Node, float] = dict.fromkeys(self._readers, 0.0)

    def weight_amax(self, weight: torch.Tensor) -> torch.Tensor:
        """Largest magnitude per output channel of a weight [out, kz, ky, kx, in]."""
        quantizer = self._modelopt.weight_quantizer()
        quantizer(weight)
        quantizer.load_calib_amax()
        return quantizer.amax

    def observe(self, node: Node, value: torch.Tensor) -> None:
        """Collect a value, if a convolution or an Add reads it."""
        quantizer = self._quantizers.get(node)
        if quantizer is not None:
            low, high = torch.aminmax(value)
            self.largest[node] = max(self.largest[node], -float(low), float(high))
            quantizer(value)

    def amaxes(self, percentile: float) -> dict[Node, float]:
        """The range of each value by the method."""
        result = {}
        for node, quantizer in self._quantizers.items():
            what = f"{' and '.join(self._readers[node])}, input"
            if self.largest[node] == 0.0:
                raise CalibrationError(
                    f"{what}: every value was zero in all frames, so there is no range to take (amax of "
                    "zero). Check that the frames hold points in the grid and that the layer before is not "
                    "dead."
                )
            if self._method == "max":
                quantizer.load_calib_amax()
            elif self._method == "percentile":
                quantizer.load_calib_amax("percentile", percentile=percentile)
            else:
                quantizer.load_calib_amax(self._method)
            amax = float(quantizer.amax)
            if amax == 0.0:
                raise CalibrationError(
                    f"{what}: the {percentile} percentile lies in the first histogram bin (largest value "
                    f"{self.largest[node]:.6g}), which would make the range zero. Raise the percentile or "
                    "num_bins, or use another method."
                )
            # Bins of a later frame may end beyond the largest value; a range above it would only waste
            # levels.
            result[node] = checked_range(min(amax, self.largest[node]), what)
        return result


def _import_quantizers() -> Any:
    """The module `quant.histogram`, or MissingPackageError if modelopt is not installed."""
    try:
        return importlib.import_module("quant.histogram")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "modelopt":
            raise
        raise MissingPackageError.of("nvidia-modelopt", "quant", "Calibration") from error
