# SPDX-License-Identifier: Apache-2.0
"""Times of single layers: rounds over all of them in turn, and what they are beside the machine's peak."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from benchmarks.layer.cases import Layer, kernels_of
from scn_fx import _core
from scn_fx.bench.gpu.stages import TENSOR_RATES
from scn_fx.bench.machine import measured_peaks
from scn_fx.bench.timing import Timing, in_turn

__all__ = ["Row", "Subject", "measure", "peaks_of", "subjects_of"]

_ROUNDS = 3
Peaks = Mapping[int, Mapping[str, float | None]]


@dataclass(frozen=True)
class Subject:
    """A layer by one kernel on a number of threads (0 on a GPU)."""

    layer: Layer
    kernel: str
    device: str
    threads: int

    def seconds(self, repeat: int) -> tuple[str, list[float]]:
        """The kernel that ran, and the seconds of `repeat` runs after one to warm up."""
        _, ran, seconds = _core.convolve(
            self.layer.problem, self.device, self.kernel, repeat=repeat, threads=self.threads
        )
        return ran, seconds


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    kind: str
    precision: str
    inputs: int
    outputs: int
    rows: int
    pairs: int
    threads: int
    kernel: str
    milliseconds: dict[str, Any]
    """As `Timing.to_dict`."""
    gmacs: float
    """10^9 multiply-accumulates of active pairs per second, by the median."""
    peak_share: float | None
    """Part of the peak of this arithmetic, 0 to 1, where that is known."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def subjects_of(
    layers: Sequence[Layer],
    *,
    device: str,
    threads: Sequence[int],
    kernels: Sequence[str] = (),
    every_kernel: bool = False,
) -> list[Subject]:
    """Each layer by each kernel on each number of threads, which mean nothing on a GPU."""
    counts = threads if device == "cpu" else (0,)
    return [
        Subject(layer, kernel, device, count)
        for layer in layers
        for kernel in kernels_of(layer, device, kernels, every_kernel)
        for count in counts
    ]


def peaks_of(device: str, threads: Sequence[int]) -> Peaks:
    """Operations per second by number of threads and precision.

    Measured on the CPU; of a GPU those of its data sheet, none where that is not known.
    """
    if device == "cpu":
        found = {count: measured_peaks(count) for count in threads}
        return {count: {**peaks, "fp16": peaks["fp32"]} for count, peaks in found.items()}
    number = int(device.partition(":")[2] or 0)
    return {0: TENSOR_RATES.get(_core.cuda_info()["devices"][number]["name"], {})}


def measure(subjects: Sequence[Subject], repeat: int, peaks: Peaks) -> list[Row]:
    """A row for each subject: `repeat` runs at least, in rounds over all subjects in turn.

    A machine that slows down meanwhile then meets all of them alike. Raises what `_core.convolve` raises.
    """
    each = -(-repeat // _ROUNDS)
    runs = {number: partial(subject.seconds, each) for number, subject in enumerate(subjects)}
    found = in_turn(runs, lambda run: run(), _ROUNDS, warmup=0)
    return [_row(subject, found[number], peaks) for number, subject in enumerate(subjects)]


def _row(subject: Subject, rounds: Sequence[tuple[str, list[float]]], peaks: Peaks) -> Row:
    layer = subject.layer
    timing = Timing(tuple(s for _, seconds in rounds for s in seconds))
    speed = layer.macs / timing.median
    peak = peaks.get(subject.threads, {}).get(layer.precision)
    return Row(
        kind=layer.kind,
        precision=layer.precision,
        inputs=layer.inputs,
        outputs=layer.outputs,
        rows=layer.rows,
        pairs=layer.pairs,
        threads=subject.threads,
        kernel=rounds[0][0],
        milliseconds=timing.to_dict(),
        gmacs=speed / 1e9,
        peak_share=2 * speed / peak if peak else None,
    )
