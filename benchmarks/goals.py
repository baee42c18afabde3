# SPDX-License-Identifier: Apache-2.0
"""What the CPU engine wants to reach, checked against a report of `scn_fx.bench`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

__all__ = ["Goal", "check_goals"]

_VOXELS = (60_000, 100_000)
"""The frame that speed goals are for: ten sweeps, about 80,000 voxels."""
_MAPS_MS = 10.0
_BUFFERS = 150e6
_IMPORT_MS = 1000.0
# Where a goal says "no slower than", equal speeds must not fail by the noise of the timing.
_SLACK = 1.05


@dataclass(frozen=True)
class Goal:
    """One goal: what, how much is wanted, what was found (None: not measured), whether it is reached."""

    text: str
    wanted: str
    found: str | None
    reached: bool | None


def check_goals(report: dict[str, Any]) -> list[Goal]:
    """All goals, in the order of their weight; those that the report has no numbers for are neither."""
    goals: list[Goal] = []
    low, high = _VOXELS
    main = next((frame for frame in report["frames"] if low <= frame["voxels"] <= high), None)
    threads = report["settings"]["threads"][-1]
    if main is not None:
        goals += _speed(main, threads)
        goals += _order(report["frames"], threads)
    layers = report["layers"]
    if main is not None and layers["frame"] == main["frame"]:
        ms = layers["totals"]["kernel maps"]
        goals.append(
            Goal(f"kernel maps of {main['frame']}", f"<= {_MAPS_MS:g} ms", f"{ms:.2f} ms", ms <= _MAPS_MS)
        )
    for row in report["growth"]:
        if row["engine"] == "scn-fx":
            wanted, found = row["pairs_times"] * _SLACK, row["time_times"]
            name = f"{row['precision']}, {row['threads']} thread(s): growth from smallest frame to largest"
            goals.append(Goal(name, f"<= {wanted:.2f} times", f"{found:.2f} times", found <= wanted))
    goals += _footprint(report)
    return goals


def _speed(frame: dict[str, Any], threads: int) -> Iterator[Goal]:
    runs = {(run["engine"], run["precision"], run["threads"]): run for run in frame["runs"]}
    for precision, factor in (("int8", 10.0), ("fp32", 2.5)):
        run = runs.get(("scn-fx", precision, threads))
        found = run["speedup"]["median"] if run and run["speedup"] else None
        yield Goal(
            f"{precision} over spconv fp32, {frame['frame']}, {threads} thread(s)",
            f">= {factor:g} times",
            None if found is None else f"{found:.2f} times",
            None if found is None else found >= factor,
        )
    single, half = (runs.get(("scn-fx", precision, threads)) for precision in ("fp32", "fp16"))
    if single and half:
        found = half["milliseconds"]["median"] / single["milliseconds"]["median"]
        yield Goal("fp16 against fp32, time", f"<= {_SLACK} times", f"{found:.2f} times", found <= _SLACK)
    for precision in ("int8", "fp32"):
        run = runs.get(("scn-fx", precision, 2))
        if run and run["scaling"]:
            found = run["scaling"]["median"]
            yield Goal(f"{precision}: 2 threads over 1", ">= 1.7 times", f"{found:.2f} times", found >= 1.7)


def _order(frames: list[dict[str, Any]], threads: int) -> Iterator[Goal]:
    order = ("int8", "fp16", "fp32")
    for frame in frames:
        times = {
            run["precision"]: run["milliseconds"]["median"]
            for run in frame["runs"]
            if run["engine"] == "scn-fx" and run["threads"] == threads
        }
        peer = [
            run["milliseconds"]["median"]
            for run in frame["runs"]
            if run["engine"] == "spconv" and run["threads"] == threads
        ]
        chain = [(name, times[name]) for name in order if name in times] + [("spconv", ms) for ms in peer]
        found = ", ".join(f"{name} {ms:.1f} ms" for name, ms in chain)
        reached = all(a <= b * _SLACK for (_, a), (_, b) in pairwise(chain))
        yield Goal(f"order on {frame['frame']} ({frame['voxels']:,} voxels)", "ascending", found, reached)


def _footprint(report: dict[str, Any]) -> Iterator[Goal]:
    for row in report.get("memory", []):
        size = row["buffer_bytes"]
        size = sum(size.values()) if isinstance(size, dict) else size
        yield Goal(
            f"engine buffers, {row['precision']}",
            f"<= {_BUFFERS / 1e6:g} MB",
            None if size is None else f"{size / 1e6:.1f} MB",
            None if size is None else size <= _BUFFERS,
        )
        heavy = row["unwanted"]
        yield Goal(
            f"heavy imports of a run, {row['precision']}", "none", ", ".join(heavy) or "none", not heavy
        )
    for code in ("import scn_fx", "from scn_fx import Engine"):
        if "imports" in report:
            ms = report["imports"][code]
            yield Goal(f"`{code}`", f"<= {_IMPORT_MS:g} ms", f"{ms:.0f} ms", ms <= _IMPORT_MS)
