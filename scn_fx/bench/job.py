# SPDX-License-Identifier: Apache-2.0
"""The whole benchmark: from settings to a report of plain data."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from scn_fx.bench.frames import FrameSet, find_frames
from scn_fx.bench.layers import active_pairs, layer_rows, totals, weight_widths
from scn_fx.bench.machine import describe_machine, measured_peaks, processors
from scn_fx.bench.memory import import_milliseconds, measure_memory
from scn_fx.bench.model import PRECISIONS, ModelFiles, prepare_model
from scn_fx.bench.timing import Timing, interleaved, ratio
from scn_fx.errors import ArgumentError
from scn_fx.files.onnx_models import read_model
from scn_fx.lidar import Frame
from scn_fx.runtime import Engine
from scn_fx.runtime.engine import StageTime

__all__ = [
    "BenchSettings",
    "Subject",
    "growth",
    "noisy",
    "parse_precisions",
    "parse_threads",
    "result_rows",
    "run_bench",
    "table_frame",
]

_NOISE = 2.0


@dataclass(frozen=True)
class BenchSettings:
    """What to measure.

    Raises ArgumentError for an unknown precision, thread counts below 1, or no repetition.
    """

    frames: Path | None = None
    """Folder of real frames; None takes the one that SCN_FX_DATA names, or synthetic frames."""
    names: tuple[str, ...] = ()
    """Names of the frames to use; all if empty."""
    threads: tuple[int, ...] = ()
    """Thread counts; empty stands for one thread and all processors."""
    precisions: tuple[str, ...] = PRECISIONS
    repeat: int = 5
    warmup: int = 1
    spconv: bool = True
    """Whether spconv's CPU build runs as well."""
    layers: str | None = None
    """Precision of the layer table; None takes the last of `precisions`."""
    memory: bool = False
    """Whether to measure memory and imports, in new processes."""
    workdir: Path | None = None
    """Keeps the network's files for the next benchmark; None makes them anew."""
    small: bool = False
    """A narrow network on a small grid, for a quick try."""

    def __post_init__(self) -> None:
        known = ", ".join(PRECISIONS)
        for precision in (*self.precisions, *([self.layers] if self.layers else [])):
            if precision not in PRECISIONS:
                raise ArgumentError(f"Unknown precision {precision!r}; expected some of {known}.")
        if not self.precisions:
            raise ArgumentError(f"Expected at least one precision of {known}, got none.")
        if any(n < 1 for n in self.threads):
            raise ArgumentError(f"threads must be at least 1, got {min(self.threads)}.")
        if self.repeat < 1 or self.warmup < 0:
            raise ArgumentError(
                f"repeat must be at least 1 and warmup at least 0, got {self.repeat} and {self.warmup}."
            )

    @property
    def thread_counts(self) -> tuple[int, ...]:
        """Ascending thread counts to measure."""
        return tuple(sorted(set(self.threads) or {1, processors()}))

    @property
    def layer_precision(self) -> str:
        """Precision of the layer table."""
        return self.layers or self.precisions[-1]


@dataclass(frozen=True)
class Subject:
    """Who runs a frame, and how."""

    engine: str
    """"scn-fx" or "spconv"."""
    precision: str
    threads: int


@dataclass
class _Bench:
    """The engines and the peer, made once for all frames."""

    settings: BenchSettings
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


def run_bench(settings: BenchSettings, say: Callable[[str], None] = lambda text: None) -> dict[str, Any]:
    """Measure everything that `settings` asks for; `say` hears what is being done.

    Returns plain data; docs/how-to/benchmark.md describes its fields. Times are milliseconds. Raises the
    errors of frames, packages and engine (`ScnError`).
    """
    began = time.perf_counter()
    say("frames")
    chosen = find_frames(settings.frames, small=settings.small).select(settings.names)
    with ExitStack() as stack:
        workdir = settings.workdir or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        say("the network's files")
        files = prepare_model(workdir, small=settings.small)
        report: dict[str, Any] = {"format": 1, "machine": describe_machine()}
        report["settings"] = {
            "threads": list(settings.thread_counts),
            "precisions": list(settings.precisions),
            "repeat": settings.repeat,
            "warmup": settings.warmup,
            "network": "small" if settings.small else "CenterPoint sparse encoder",
        }
        if settings.memory:  # first, while the machine is as it was found
            say("memory and imports")
            report["memory"] = _memory(settings, files, table_frame(chosen, settings))
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
        report["layers"] = _layers(bench, table_frame(chosen, settings), peaks)
        report["layers"]["timed"] = _timed(report)
    report["seconds"] = time.perf_counter() - began
    return report


def table_frame(chosen: FrameSet, settings: BenchSettings) -> Frame:
    """The frame for the layer table: the first that was asked for, else the one of median size."""
    return chosen.frames[0 if settings.names else len(chosen.frames) // 2]


def _frame(bench: _Bench, frame: Frame, say: Callable[[str], None]) -> dict[str, Any]:
    say(f"{frame.name}, {len(frame):,} voxels")
    timings = bench.time(frame)
    precision, threads = bench.settings.precisions[-1], bench.settings.thread_counts[-1]
    (stages,) = bench.profiles(frame, precision, threads, 1)
    widths = weight_widths(read_model(bench.files.source(precision)[0]))
    return {
        "frame": frame.name,
        "source": frame.source,
        "voxels": len(frame),
        "active_pairs": active_pairs(stages, widths),
        "macs": sum(stage.macs for stage in stages),
        "runs": result_rows(timings),
    }


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
            "engine": subject.engine,
            "precision": subject.precision,
            "threads": subject.threads,
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


def _layers(bench: _Bench, frame: Frame, peaks: dict[int, dict[str, float | None]]) -> dict[str, Any]:
    precision, threads = bench.settings.layer_precision, bench.settings.thread_counts[-1]
    profiles = bench.profiles(frame, precision, threads, bench.settings.repeat)
    steps = bench.engine(precision, threads).describe()["steps"]
    arithmetic = {step["name"]: step["precision"] for step in steps if step["kind"] == "convolution"}
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


def _memory(settings: BenchSettings, files: ModelFiles, frame: Frame) -> list[dict[str, Any]]:
    rows = []
    for precision in settings.precisions:
        file, option = files.source(precision)
        threads = settings.thread_counts[-1]
        found = measure_memory(file, frame, precision=option, threads=threads)
        rows.append({"precision": precision, "file_bytes": file.stat().st_size, **found})
    return rows


def parse_threads(text: str) -> tuple[int, ...]:
    """Thread counts of a command line, "1,2". ArgumentError for anything else and counts below 1."""
    try:
        counts = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ArgumentError(
            f"threads must be whole numbers with commas between, as 1,2; got {text!r}."
        ) from None
    if min(counts) < 1:
        raise ArgumentError(f"threads must be at least 1, got {min(counts)}.")
    return counts


def parse_precisions(text: str) -> tuple[str, ...]:
    """Precisions of a command line, "fp32,int8", each once. ArgumentError for unknown ones."""
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    for name in names:
        if name not in PRECISIONS:
            raise ArgumentError(f"Unknown precision {name!r}; expected some of {', '.join(PRECISIONS)}.")
    return names
