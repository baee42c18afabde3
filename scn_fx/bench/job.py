# SPDX-License-Identifier: Apache-2.0
"""The whole benchmark: from settings to a report of plain data."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from scn_fx.bench.common import Say, described, prepared, silent, table_frame
from scn_fx.bench.layers import active_pairs, convolves, layer_rows, totals, weight_widths
from scn_fx.bench.machine import describe_machine, measured_peaks
from scn_fx.bench.memory import import_milliseconds, measure_memory
from scn_fx.bench.model import ModelFiles, prepare_model
from scn_fx.bench.results import Subject, growth, noisy, result_rows
from scn_fx.bench.settings import CpuSettings
from scn_fx.bench.timing import Timing, interleaved
from scn_fx.files.onnx_models import read_model
from scn_fx.lidar import Frame
from scn_fx.runtime import Engine
from scn_fx.runtime.engine import StageTime

__all__ = ["run_bench"]


@dataclass
class _Bench:
    """The engines and the peer, made once for all frames."""

    settings: CpuSettings
    files: ModelFiles
    engines: dict[Subject, Engine] = field(default_factory=dict)
    peer: Any = None

    def __post_init__(self) -> None:
        for precision in self.settings.precisions:
            for threads in self.settings.thread_counts:
                self.engine(precision, threads)
        if self.settings.spconv:
            from scn_fx.bench.peer import SpconvPeer

            self.peer = SpconvPeer(self.files)

    def engine(self, precision: str, threads: int) -> Engine:
        subject = Subject("scn-fx", precision, threads)
        if subject not in self.engines:
            file, option = self.files.source(precision)
            self.engines[subject] = Engine(file, precision=option, threads=threads)
        return self.engines[subject]

    def time(self, frame: Frame) -> dict[Subject, Timing]:
        """All subjects in turn on one frame."""
        runs: dict[Subject, Callable[[], Any]] = {}
        if self.peer is not None:
            self.peer.load(frame.features, frame.indices)
            for threads in self.settings.thread_counts:
                runs[Subject("spconv", "fp32", threads)] = partial(self.peer, threads)
        for subject in self.engines:
            if subject.precision in self.settings.precisions:
                runs[subject] = partial(self.engines[subject], frame.features, frame.indices)
        return interleaved(runs, self.settings.repeat, warmup=self.settings.warmup)

    def profiles(self, frame: Frame, precision: str, threads: int, runs: int) -> list[list[StageTime]]:
        engine = self.engine(precision, threads)
        for _ in range(self.settings.warmup):
            engine(frame.features, frame.indices)
        return [engine.profile(frame.features, frame.indices) for _ in range(runs)]


def run_bench(settings: CpuSettings, say: Say = silent) -> dict[str, Any]:
    """Measure everything that `settings` asks for.

    Returns plain data; docs/how-to/benchmark.md describes its fields. Times are milliseconds. Raises the
    errors of frames, packages and engine (`ScnError`).
    """
    began = time.perf_counter()
    with prepared(settings, prepare_model, say) as (chosen, files):
        shown = table_frame(chosen, settings)
        report: dict[str, Any] = {"format": 1, "machine": describe_machine(), "settings": settings.to_dict()}
        if settings.memory:  # first, while the machine is as it was found
            say("memory and imports")
            report["memory"] = _memory(settings, files, shown)
            report["imports"] = import_milliseconds()
        say("the machine's peak")
        peaks = {threads: measured_peaks(threads) for threads in settings.thread_counts}
        report["peaks"] = [
            {"threads": n, "kind": kind, "gops": None if value is None else value / 1e9}
            for n, found in peaks.items()
            for kind, value in found.items()
        ]
        bench = _Bench(settings, files)
        report["frames"] = [_frame(bench, frame, say) for frame in chosen.frames]
        report["skipped"] = list(chosen.skipped)
        report["noisy"] = noisy(report["frames"])
        report["growth"] = growth(report["frames"])
        say("layers")
        report["layers"] = _layers(bench, shown, peaks)
        report["layers"]["timed"] = _timed(report)
    report["seconds"] = time.perf_counter() - began
    return report


def _frame(bench: _Bench, frame: Frame, say: Say) -> dict[str, Any]:
    about = described(frame, say)
    timings = bench.time(frame)
    precision, threads = bench.settings.precisions[-1], bench.settings.thread_counts[-1]
    (stages,) = bench.profiles(frame, precision, threads, 1)
    widths = weight_widths(read_model(bench.files.source(precision)[0]))
    return {
        **about,
        "active_pairs": active_pairs(stages, widths),
        "macs": sum(stage.macs for stage in stages),
        "runs": result_rows(timings),
    }


def _layers(bench: _Bench, frame: Frame, peaks: dict[int, dict[str, float | None]]) -> dict[str, Any]:
    precision, threads = bench.settings.layer_precision, bench.settings.thread_counts[-1]
    profiles = bench.profiles(frame, precision, threads, bench.settings.repeat)
    steps = bench.engine(precision, threads).describe()["steps"]
    arithmetic = {step["name"]: step["precision"] for step in steps if convolves(step["kind"])}
    return {
        "frame": frame.name,
        "voxels": len(frame),
        "precision": precision,
        "threads": threads,
        "runs": len(profiles),
        "rows": [row.to_dict() for row in layer_rows(profiles, arithmetic, peaks[threads])],
        "totals": totals(profiles),
    }


def _timed(report: dict[str, Any]) -> float | None:
    """Median milliseconds of the layer table's subject among the timed runs: profiles should sum up to it."""
    layers = report["layers"]
    wanted = ("scn-fx", layers["precision"], layers["threads"])
    for frame in report["frames"]:
        for run in frame["runs"]:
            same = (run["engine"], run["precision"], run["threads"]) == wanted
            if same and frame["frame"] == layers["frame"]:
                return float(run["milliseconds"]["median"])
    return None


def _memory(settings: CpuSettings, files: ModelFiles, frame: Frame) -> list[dict[str, Any]]:
    rows = []
    for precision in settings.precisions:
        file, option = files.source(precision)
        threads = settings.thread_counts[-1]
        found = measure_memory(file, frame, precision=option, threads=threads)
        rows.append({"precision": precision, "file_bytes": file.stat().st_size, **found})
    return rows
