# SPDX-License-Identifier: Apache-2.0
"""What frames have shown of the values of a graph; statistics of any sets of frames merge exactly."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scn_fx.quant.histogram import MagnitudeHistogram
from scn_fx.quant.pairs import PairHistogram
from scn_fx.quant.weight_levels import LevelErrors

__all__ = ["FramePeaks", "Statistics"]


@dataclass(frozen=True)
class FramePeaks:
    """The largest magnitude that a frame has brought, that frame's number, and what all others come to."""

    first: float = 0.0
    frame: int = -1
    second: float = 0.0

    def merged(self, other: FramePeaks) -> FramePeaks:
        """The peaks of both sets of frames; of equal ones the earlier frame's comes first."""
        ahead, behind = sorted((self, other), key=lambda peaks: (-peaks.first, peaks.frame))
        return FramePeaks(ahead.first, ahead.frame, max(ahead.second, behind.first))


class Statistics:
    """Histograms of a graph's values.

    Attributes:
        values: histogram of each value that a convolution or an Add reads, by the value's key.
        peaks: what single frames brought of these values.
        operands: for each Add before a ReLU, by name, histograms of the effective part of both operands.
        pairs: for each of these Adds the counts of its pairs of operands.
        weights: for each convolution, by name, what the rounding of its weights costs at its output.
    """

    def __init__(
        self, values: Sequence[str], adds: Sequence[str], convolutions: Mapping[str, int], num_bins: int
    ) -> None:
        """`convolutions` are output channels by name."""
        self.values = {key: MagnitudeHistogram(num_bins) for key in values}
        self.peaks = dict.fromkeys(values, FramePeaks())
        self.operands = {name: (MagnitudeHistogram(num_bins), MagnitudeHistogram(num_bins)) for name in adds}
        self.pairs = {name: PairHistogram() for name in adds}
        self.weights = {name: LevelErrors(channels) for name, channels in convolutions.items()}

    def histograms(self) -> Iterator[MagnitudeHistogram]:
        """All histograms of magnitudes."""
        yield from self.values.values()
        for parts in self.operands.values():
            yield from parts

    def note_peaks(self, frame: int) -> None:
        """Say that all that was collected here comes from one frame of that number."""
        self.peaks = {key: FramePeaks(found.magnitude, frame) for key, found in self.values.items()}

    def merge(self, other: Statistics) -> None:
        """Take in the statistics of other frames for the same graph; `other` stays as it is."""
        for key, histogram in self.values.items():
            histogram.merge(other.values[key])
            self.peaks[key] = self.peaks[key].merged(other.peaks[key])
        for name, parts in self.operands.items():
            for part, theirs in zip(parts, other.operands[name], strict=True):
                part.merge(theirs)
            self.pairs[name].merge(other.pairs[name])
        for name, errors in self.weights.items():
            errors.merge(other.weights[name])

    def state(self) -> dict[str, Any]:
        """All of it as numpy arrays and plain data; `from_state` takes them back."""
        return {
            "values": {key: histogram.state() for key, histogram in self.values.items()},
            "peaks": {key: [peaks.first, peaks.frame, peaks.second] for key, peaks in self.peaks.items()},
            "operands": {name: [part.state() for part in parts] for name, parts in self.operands.items()},
            "pairs": {name: pair.state() for name, pair in self.pairs.items()},
            "weights": {name: errors.state() for name, errors in self.weights.items()},
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Statistics:
        """The statistics of a `state`. Raises ValueError, KeyError or TypeError if it is damaged."""
        made = cls([], [], {}, 1)
        made.values = {key: MagnitudeHistogram.from_state(kept) for key, kept in state["values"].items()}
        made.peaks = {
            key: FramePeaks(float(first), int(frame), float(second))
            for key, (first, frame, second) in state["peaks"].items()
        }
        made.operands = {
            name: (MagnitudeHistogram.from_state(a), MagnitudeHistogram.from_state(b))
            for name, (a, b) in state["operands"].items()
        }
        made.pairs = {name: PairHistogram.from_state(kept) for name, kept in state["pairs"].items()}
        made.weights = {name: LevelErrors.from_state(kept) for name, kept in state["weights"].items()}
        if made.peaks.keys() != made.values.keys() or made.pairs.keys() != made.operands.keys():
            raise ValueError("its parts are not of the same values")
        return made
