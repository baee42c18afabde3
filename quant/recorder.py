# SPDX-License-Identifier: Apache-2.0
"""Records the values that feed convolutions and Adds while frames run, and takes ranges from them."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence, Sized
from typing import TYPE_CHECKING, Any

import torch
from torch.fx import GraphModule, Node

from quant.frames import input_spec
from quant.interpreter import FloatInterpreter
from quant.outliers import GAP
from quant.progress import progress_bar
from quant.ranges import checked_range, quantizable
from quant.screening import FrameScreen
from quant.similarity import FrameVariety
from scn_fx.errors import CalibrationError, MissingPackageError, ScnError

if TYPE_CHECKING:
    from modelopt.torch.quantization.nn import TensorQuantizer

__all__ = ["Recorder", "record"]

_SHOWN = 10


class Recorder:
    """One quantizer per value that feeds a convolution or an Add.

    Attributes:
        largest: for each of these values, its largest magnitude so far.
        frame: number of the frame that runs; the caller sets it.
    """

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
        self.frame = 0
        # Of the frame that brings the largest magnitude: that, its number, and what the others come to.
        self._first: dict[Node, tuple[float, int, float]] = dict.fromkeys(self._readers, (0.0, -1, 0.0))

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
            peak = max(-float(low), float(high))
            self.largest[node] = max(self.largest[node], peak)
            first, frame, second = self._first[node]
            ahead = peak > first
            self._first[node] = (peak, self.frame, first) if ahead else (first, frame, max(second, peak))
            quantizer(value)

    def lonely(self, frames: int) -> list[str]:
        """What to say of layers whose inputs one frame alone makes more than GAP times as large."""
        layers: dict[int, list[str]] = {}
        for node, (first, frame, second) in self._first.items():
            if frames >= 3 and 0 < second * GAP < first:
                share = self._share_beyond(node, second)
                text = f"{self._readers[node][0]} {first:.6g}, others at most {second:.6g}{share}"
                layers.setdefault(frame, []).append(text)
        return [
            f"Frame {frame} (counted from 0) alone brings the largest values at the inputs of {len(texts)} "
            f"layers: {'; '.join(texts[:3])}{'; ...' if len(texts) > 3 else ''}. They are used; leave the "
            "frame out if it is damaged."
            for frame, texts in layers.items()
        ]

    def _share_beyond(self, node: Node, magnitude: float) -> str:
        """The share of the non-zero values beyond a magnitude, if there is a histogram."""
        counts = getattr(self._quantizers[node]._calibrator, "_calib_hist", None)
        edges = getattr(self._quantizers[node]._calibrator, "_calib_bin_edges", None)
        if counts is None or edges is None:
            return ""
        return f" ({counts[edges[:-1] >= magnitude].sum() / max(counts.sum(), 1):.2g} of the values beyond)"

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


def record(
    graph: GraphModule,
    frames: Iterable[Sequence[Any]],
    recorder: Recorder,
    outliers: str,
    progress: bool | None,
) -> tuple[int, list[str]]:
    """Run all frames that count past the recorder; returns their number and what there is to warn of.

    Raises CalibrationError if there are no frames, and the errors of frames and layers, with the frame named.
    """
    expected = input_spec(graph)
    screen, variety = FrameScreen(expected, outliers), FrameVariety()
    interpreter = FloatInterpreter(graph, recorder.observe)
    total = len(frames) if isinstance(frames, Sized) else None
    with progress_bar(progress, total) as advance, torch.no_grad():
        for number, tensors in screen.passed(frames):
            recorder.frame = number
            try:
                interpreter.run(*tensors)
            except ScnError as error:
                raise type(error)(f"Frame {number} (counted from 0): {error}") from error
            variety.add(tensors[expected.indices])
            advance()
    if variety.frames == 0:
        raise CalibrationError(
            "There are no frames. Calibration needs at least one; a few hundred from different places are "
            "usual."
        )
    alike = variety.finding()
    findings = [*_first(screen.findings), *recorder.lonely(variety.frames), *([alike] if alike else [])]
    return variety.frames, findings


def _first(findings: list[str]) -> list[str]:
    """The first findings, and how many more there are: a damaged sensor may give one for every frame."""
    more = len(findings) - _SHOWN
    return findings if more <= 0 else [*findings[:_SHOWN], f"There are {more} more findings of this kind."]
