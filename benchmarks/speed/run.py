# SPDX-License-Identifier: Apache-2.0
"""Times of the engine in int8 and of its peers on the same frame, and what is wanted of their ratio."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.goals import Goal
from benchmarks.speed.cases import Case, Network, make_case, write_files
from benchmarks.speed.peers import PEERS, make_peer, one_thread
from scn_fx.bench.common import Say, silent
from scn_fx.bench.gpu.device import Gpu, Sample
from scn_fx.bench.machine import describe_machine
from scn_fx.bench.timing import Timing, deciles, extremes, in_turn, interleaved, ratio
from scn_fx.lidar import Frame
from scn_fx.runtime import Engine

__all__ = ["WANTED", "Subject", "goals_of", "rows_of", "run_speed"]

WANTED = {"cpu": 5.0, "cuda": 8.0}
"""How many times faster than spconv the engine wants to be."""

Runs = dict["Subject", Callable[[], Any]]
Clocks = Mapping["Subject", Mapping[str, Timing]]


@dataclass(frozen=True)
class Subject:
    """Who runs the frame, and how."""

    engine: str
    """"scn-fx" or "spconv"."""
    variant: str
    """The dialect of the engine's file, or one of `PEERS`."""
    precision: str
    graph: bool = False
    """Whether a CUDA graph is replayed."""


def run_speed(
    networks: Sequence[Network],
    frame: Frame | None,
    *,
    voxels: int,
    device: str = "cpu",
    number: int = 0,
    repeat: int,
    small: bool = False,
    say: Say = silent,
) -> dict[str, Any]:
    """Time every network; docs/how-to/benchmark.md describes the plain data that this returns.

    Args:
        networks: of `benchmarks.speed.cases.NETWORKS`.
        frame: for all of them; None gives each one of its own grid, of about `voxels`.
        voxels: see there.
        device: "cpu" or "cuda".
        number: which GPU.
        repeat: rounds that count.
        small: narrow networks on small grids.
        say: hears what is being done.

    Raises ArgumentError if there is no such GPU, and the errors of capture, export and engine (`ScnError`).
    """
    began = time.perf_counter()
    gpu = Gpu(number) if device == "cuda" else None
    report: dict[str, Any] = {
        "format": 1,
        "device": gpu.name if gpu else "cpu",
        "machine": describe_machine(),
        "settings": {"repeat": repeat, "networks": "small" if small else "published"},
        "networks": [],
        "skipped": [],
    }
    for network in networks:
        say(f"{network.name}: weights")
        case = make_case(network, frame, voxels, small=small)
        with tempfile.TemporaryDirectory() as folder:
            say(f"{network.name}: the engine's files")
            files = write_files(case, Path(folder))
            say(f"{network.name} on {case.frame}, {len(case.indices):,} sites")
            with nullcontext() if gpu else one_thread():
                runs, engines, skipped = _subjects(case, files, gpu)
                rows = rows_of(_timed(runs, gpu, repeat), deciles if gpu else extremes)
                agreement = _agreement(case, files, gpu, runs)
            for engine in engines:
                engine.synchronize()
        report["skipped"] += skipped
        report["networks"].append(
            {
                "network": network.name,
                "frame": case.frame,
                "source": case.source,
                "voxels": case.voxels,
                "sites": len(case.indices),
                "runs": list(rows.values()),
                "agreement": agreement,
            }
        )
    report["goals"] = [] if small else [vars(goal) for goal in goals_of(report, WANTED[device])]
    report["seconds"] = time.perf_counter() - began
    return report


def _subjects(case: Case, files: Mapping[str, Path], gpu: Gpu | None) -> tuple[Runs, list[Engine], list[str]]:
    """What is timed, the engines among it, and a sentence about each peer that does not run here."""
    runs: Runs = {}
    skipped = []
    arrays: Any = gpu.upload(case) if gpu else case.tensors
    for kind in PEERS:
        try:
            peer = make_peer(kind, case.model, *arrays)
            peer()
        except Exception as error:  # a build for another CUDA or GPU fails in ways of its own
            lines = str(error).strip().splitlines() or [type(error).__name__]
            skipped.append(f"{case.network.name}, spconv {kind}: {lines[0]}")
        else:
            runs[Subject("spconv", kind, "fp16" if gpu else "fp32")] = peer
    engines = []
    for dialect, file in files.items():
        for graph in (False, True) if gpu else (False,):
            engine = gpu.engine(file, None, graph) if gpu else Engine(file, threads=1)
            given = partial(engine, *arrays, copy=False) if gpu else partial(engine, *case)
            runs[Subject("scn-fx", dialect, "int8", graph)] = given
            engines.append(engine)
    return runs, engines, skipped


def _timed(runs: Runs, gpu: Gpu | None, repeat: int) -> dict[Subject, dict[str, Timing]]:
    if gpu is None:
        found = interleaved(runs, repeat, warmup=1)
        return {subject: {"wall": timing} for subject, timing in found.items()}
    samples: dict[Subject, list[Sample]] = in_turn(runs, gpu.measure, repeat, warmup=10)
    return {
        subject: {clock: Timing(tuple(getattr(one, clock) for one in made)) for clock in ("event", "wall")}
        for subject, made in samples.items()
    }


def rows_of(
    timings: Clocks, spread: Callable[[Sequence[float]], dict[str, float]] = extremes
) -> dict[Subject, dict[str, Any]]:
    """For each subject and clock milliseconds, and of the engine "speedup" over each peer of the same run."""
    peers = {subject.variant: found for subject, found in timings.items() if subject.engine == "spconv"}
    rows = {}
    for subject, clocks in timings.items():
        row: dict[str, Any] = asdict(subject)
        for clock, timing in clocks.items():
            over = {kind: ratio(peer[clock], timing, spread) for kind, peer in peers.items()}
            ms = {**timing.to_dict(), **spread([s * 1e3 for s in timing.seconds])}
            row[clock] = {"milliseconds": ms, "speedup": over if subject.engine == "scn-fx" else {}}
        rows[subject] = row
    return rows


def _agreement(case: Case, files: Mapping[str, Path], gpu: Gpu | None, runs: Runs) -> dict[str, float]:
    """Decibels between what spconv computes and each file's difference from it: all run one network.

    In fp32: what int8 costs in a U-Net with random weights would hide a difference.
    """
    eager = next((run for subject, run in runs.items() if subject.variant == "eager"), None)
    if eager is None:
        return {}
    wanted = eager().double()
    arrays: Any = gpu.upload(case) if gpu else case.tensors
    found = {}
    for dialect, file in files.items():
        engine = gpu.engine(file, "fp32", False) if gpu else Engine(file, precision="fp32", threads=1)
        made = engine(*arrays)  # of a sparse output the features: sites of the input keep its order
        values = torch.as_tensor(made[0] if isinstance(made, tuple) else made).double()
        noise = (wanted - values).square().sum().clamp(min=1e-30)
        found[dialect] = float(10 * torch.log10(wanted.square().sum() / noise))
    return found


def goals_of(report: Mapping[str, Any], wanted: float) -> list[Goal]:
    """One for each network: its fastest file over the fastest of spconv, by the median of the wait."""
    goals = []
    for network in report["networks"]:
        rows = [row for row in network["runs"] if row["wall"]["speedup"]]
        found = {
            row["variant"]: min(over["median"] for over in row["wall"]["speedup"].values())
            for row in sorted(rows, key=lambda row: -float(row["wall"]["milliseconds"]["median"]))
        }
        best = max(found, key=lambda name: found[name], default=None)
        goals.append(
            Goal(
                f"int8 over spconv, {network['network']}, {network['voxels']:,} voxels",
                f">= {wanted:g} times",
                f"{found[best]:.2f} times ({best})" if best else None,
                found[best] >= wanted if best else None,
            )
        )
    return goals
