# SPDX-License-Identifier: Apache-2.0
"""What the times of a benchmark on the CPU say: ratios, growth with the frame, noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from scn_fx.bench.timing import Timing, ratio

__all__ = ["Subject", "growth", "noisy", "result_rows"]

_NOISE = 2.0


@dataclass(frozen=True)
class Subject:
    """Who runs a frame, and how."""

    engine: str
    """"scn-fx" or "spconv"."""
    precision: str
    threads: int


def result_rows(timings: dict[Subject, Timing]) -> list[dict[str, Any]]:
    """One row per subject: milliseconds, and how many times faster it is than others of the same run.

    "speedup" is over spconv with as many threads, None without it; "scaling" over the subject itself with one
    thread, None if that was not measured.
    """
    rows = []
    for subject, timing in timings.items():
        peer = timings.get(Subject("spconv", "fp32", subject.threads))
        single = timings.get(Subject(subject.engine, subject.precision, 1))
        row = {
            **asdict(subject),
            "milliseconds": timing.to_dict(),
            "speedup": None if peer is None or subject.engine == "spconv" else ratio(peer, timing),
            "scaling": None if single is None or subject.threads == 1 else ratio(single, timing),
        }
        rows.append(row)
    return rows


def noisy(frames: Sequence[dict[str, Any]]) -> list[str]:
    """A sentence about each subject whose slowest round took more than twice as long as its fastest."""
    found = []
    for frame in frames:
        for run in frame["runs"]:
            low, high = run["milliseconds"]["min"], run["milliseconds"]["max"]
            if high > _NOISE * low:
                found.append(
                    f"{run['engine']} {run['precision']}, {run['threads']} thread(s) on {frame['frame']}: "
                    f"{low:.1f} to {high:.1f} ms"
                )
    return found


def growth(frames: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """How the cost of each subject grows from the frame with the fewest active pairs to the one with most.

    Each row holds milliseconds per million active pairs on every frame, by ascending pairs; "pairs_times" and
    "time_times" say how many times more pairs the last frame has and how many times longer it takes. Empty
    for fewer than two frames.
    """
    ordered = sorted((f for f in frames if f["active_pairs"]), key=lambda f: f["active_pairs"])
    if len(ordered) < 2:
        return []
    first, last = ordered[0], ordered[-1]
    rows = []
    for number, run in enumerate(first["runs"]):
        times = [frame["runs"][number]["milliseconds"]["median"] for frame in ordered]
        rows.append(
            {
                **{key: run[key] for key in ("engine", "precision", "threads")},
                "frames": [frame["frame"] for frame in ordered],
                "ms_per_million_pairs": [
                    ms / (frame["active_pairs"] / 1e6) for ms, frame in zip(times, ordered, strict=True)
                ],
                "pairs_times": last["active_pairs"] / first["active_pairs"],
                "time_times": times[-1] / times[0],
            }
        )
    return rows
