# SPDX-License-Identifier: Apache-2.0
"""Records the values that feed convolutions and Adds while frames run, and takes ranges from them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch.fx import GraphModule, Node

from scn_fx.quant.consumers import effective_operands, rectified_adds
from scn_fx.quant.outliers import GAP
from scn_fx.quant.range_options import RangeOptions
from scn_fx.quant.ranges import quantizable, rounded_weight
from scn_fx.quant.selection import value_keys, value_ranges
from scn_fx.quant.statistics import Statistics
from scn_fx.quant.weight_levels import LEVELS, RoundedWeight

__all__ = ["Recorder", "record"]

# Numbers of all convolutions together that are held in memory from frame to frame (512 MiB).
_HELD = 1 << 27


class Recorder:
    """Collects statistics of each value that a convolution or an Add reads.

    What a frame brings counts once `finish_frame` is called: a frame that fails leaves no trace.

    Attributes:
        num_bins: least number of bins of a histogram.
        statistics: what the frames so far have shown.
    """

    def __init__(self, graph: GraphModule, method: str, num_bins: int):
        self._method = method
        self.num_bins = num_bins
        self._graph = graph
        self._keys = value_keys(graph)
        self._adds = rectified_adds(graph)
        convolutions = [layer for layer in quantizable(graph) if layer.spec.weighted]
        self._layers = {layer.node: layer for layer in convolutions}
        self._channels = {layer.name: layer.weight.shape[0] for layer in convolutions}
        self._rounded: dict[str, RoundedWeight] = {}
        self._room = _HELD
        self.statistics = self.empty()
        self._frame = self.empty()

    @property
    def largest(self) -> dict[Node, float]:
        """The largest magnitude of each value."""
        return {node: self.statistics.values[key].magnitude for node, key in self._keys.items()}

    def observe(self, node: Node, value: torch.Tensor) -> None:
        """Collect a value, if a convolution or an Add reads it."""
        key = self._keys.get(node)
        if key is not None:
            self._frame.values[key].collect(value)

    def observe_add(self, node: Node, a: torch.Tensor, b: torch.Tensor) -> None:
        """Collect the operands of an Add together, if a ReLU follows it."""
        name = self._adds.get(node)
        if name is not None:
            for histogram, part in zip(self._frame.operands[name], effective_operands(a, b), strict=True):
                histogram.collect(part)
            self._frame.pairs[name].collect(a, b)

    def observe_convolution(self, node: Node, features: torch.Tensor, kernel_map: torch.Tensor) -> None:
        """Collect what the rounding of a convolution's weights does to its output."""
        layer = self._layers.get(node)
        if layer is None or not len(kernel_map):
            return
        if layer.name not in self._rounded:
            weight = rounded_weight(layer)
            size = len(LEVELS) * weight.numel()
            self._rounded[layer.name] = RoundedWeight(weight, keep=size <= self._room)
            self._room -= size if size <= self._room else 0
        self._frame.weights[layer.name].sums += self._rounded[layer.name].errors(features, kernel_map)

    def start_frame(self) -> None:
        """Forget what a frame that did not come to its end has brought."""
        self._frame = self.empty()

    def finish_frame(self, number: int) -> None:
        """Count what the frame of this number has brought."""
        self._frame.note_peaks(number)
        self.statistics.merge(self._frame)
        self._frame = self.empty()

    def empty(self) -> Statistics:
        """Statistics of no frame."""
        return Statistics(list(self._keys.values()), list(self._adds.values()), self._channels, self.num_bins)

    def fits(self, statistics: Statistics) -> bool:
        """Whether they are statistics of this graph's values, with as many bins."""
        wanted = self.empty()
        return (
            list(statistics.values) == list(wanted.values)
            and list(statistics.operands) == list(wanted.operands)
            and {name: len(errors.sums) for name, errors in statistics.weights.items()} == self._channels
            and all(histogram.num_bins == self.num_bins for histogram in statistics.histograms())
        )

    def lonely(self, frames: int) -> list[str]:
        """What to say of layers whose inputs one frame alone makes more than GAP times as large."""
        layers: dict[int, list[str]] = {}
        for key in self._keys.values():
            peaks = self.statistics.peaks[key]
            if frames >= 3 and 0 < peaks.second * GAP < peaks.first:
                histogram = self.statistics.values[key]
                share = histogram.beyond(peaks.second) / histogram.nonzero
                text = (
                    f"{key.rpartition(':')[0]} {peaks.first:.6g}, others at most {peaks.second:.6g} "
                    f"({share:.2g} of the values beyond)"
                )
                layers.setdefault(peaks.frame, []).append(text)
        return [
            f"Frame {frame} (counted from 0) alone brings the largest values at the inputs of {len(texts)} "
            f"layers: {'; '.join(texts[:3])}{'; ...' if len(texts) > 3 else ''}. They are used; leave the "
            "frame out if it is damaged."
            for frame, texts in sorted(layers.items())
        ]

    def amaxes(self, percentile: float) -> dict[Node, float]:
        """The range of each value by the method, as if every reader used all of it."""
        return value_ranges(self._graph, self.statistics, RangeOptions(self._method, percentile))


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
    from scn_fx.quant.session import Session

    session = Session(graph, recorder, outliers)
    session.run(frames, progress)
    findings = session.gather()
    return session.counted, findings
