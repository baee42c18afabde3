# SPDX-License-Identifier: Apache-2.0
"""Times of several subjects measured side by side, and what can be said about them."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, TypeVar

import numpy as np

from scn_fx.errors import ArgumentError

__all__ = ["Timing", "check_rounds", "deciles", "extremes", "in_turn", "interleaved", "ratio"]

_PAUSE = 0.01
"""Seconds before each run: OpenMP's threads spin for some milliseconds after their work and would take the
processors from the next subject."""

Key = TypeVar("Key", bound=Hashable)
Sample = TypeVar("Sample")


@dataclass(frozen=True)
class Timing:
    """Seconds of the repetitions of one subject, in the order of measurement."""

    seconds: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.seconds or min(self.seconds) <= 0:
            raise ArgumentError(f"A timing needs at least one time, each above 0 s, got {self.seconds}.")

    @property
    def median(self) -> float:
        """Median in seconds."""
        return float(median(self.seconds))

    def to_dict(self) -> dict[str, Any]:
        """Milliseconds as plain data: median, min, max, quartiles, and every repetition."""
        low, high = np.percentile(self.seconds, [25, 75])
        return {
            "median": self.median * 1e3,
            "min": min(self.seconds) * 1e3,
            "max": max(self.seconds) * 1e3,
            "quartile1": float(low) * 1e3,
            "quartile3": float(high) * 1e3,
            "repetitions": [s * 1e3 for s in self.seconds],
        }


def check_rounds(repeat: int, warmup: int) -> None:
    """Raise ArgumentError unless there is a round that counts."""
    if repeat < 1 or warmup < 0:
        raise ArgumentError(f"repeat must be at least 1 and warmup at least 0, got {repeat} and {warmup}.")


def in_turn(
    subjects: Mapping[Key, Callable[[], Any]],
    measure: Callable[[Callable[[], Any]], Sample],
    repeat: int,
    *,
    warmup: int,
) -> dict[Key, list[Sample]]:
    """What `measure` finds of all subjects in turn (A B C A B C …), `repeat` rounds after `warmup` rounds.

    In turn, so that a machine that slows down, or other work on it, meets all of them alike. Python's garbage
    collector runs between the subjects and not within them.
    """
    check_rounds(repeat, warmup)
    samples: dict[Key, list[Sample]] = {key: [] for key in subjects}
    collecting = gc.isenabled()
    gc.disable()
    try:
        for number in range(warmup + repeat):
            for key, run in subjects.items():
                gc.collect(0)
                sample = measure(run)
                if number >= warmup:
                    samples[key].append(sample)
    finally:
        if collecting:
            gc.enable()
    return samples


def interleaved(
    subjects: Mapping[Key, Callable[[], Any]],
    repeat: int,
    *,
    warmup: int = 1,
    pause: float = _PAUSE,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[Key, Timing]:
    """Times of all subjects `in_turn`, on the clock of the host."""

    def measure(run: Callable[[], Any]) -> float:
        time.sleep(pause)
        began = clock()
        result = run()
        elapsed = clock() - began
        del result  # before the next subject allocates its own
        return elapsed

    found = in_turn(subjects, measure, repeat, warmup=warmup)
    return {key: Timing(tuple(times)) for key, times in found.items()}


def extremes(values: Sequence[float]) -> dict[str, float]:
    """The smallest and the largest."""
    return {"min": min(values), "max": max(values)}


def deciles(values: Sequence[float]) -> dict[str, float]:
    """The 10th and the 90th percentile."""
    low, high = np.percentile(values, [10, 90])
    return {"p10": float(low), "p90": float(high)}


def ratio(
    reference: Timing,
    subject: Timing,
    spread: Callable[[Sequence[float]], dict[str, float]] = extremes,
) -> dict[str, float]:
    """How many times faster `subject` is: by the medians, and how the ratios of single rounds spread.

    Both timings come from one call of `in_turn`, so that their rounds belong together.
    """
    rounds = [a / b for a, b in zip(reference.seconds, subject.seconds, strict=True)]
    return {"median": reference.median / subject.median, **spread(rounds)}
