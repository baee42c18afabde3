# SPDX-License-Identifier: Apache-2.0
"""The whole benchmark on a GPU: from settings to a report of plain data."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from scn_fx.bench.frames import find_frames
from scn_fx.bench.gpu.device import Gpu, Sample
from scn_fx.bench.gpu.stages import TENSOR_RATES, stage_rows
from scn_fx.bench.job import BenchSettings, table_frame
from scn_fx.bench.layers import totals
from scn_fx.bench.machine import describe_machine
from scn_fx.bench.model import ModelFiles, find_model
from scn_fx.bench.timing import Timing, in_turn
from scn_fx.errors import ArgumentError
from scn_fx.lidar import Frame
from scn_fx.runtime import Engine

__all__ = ["GpuSettings", "GpuSubject", "gpu_rows", "run_gpu_bench"]

CLOCKS = ("event", "wall")


@dataclass(frozen=True)
class GpuSettings(BenchSettings):
    """The same on a GPU, where threads and `memory` mean nothing: GPU memory is always measured.

    Raises ArgumentError as well if `device` is no GPU.
    """

    precisions: tuple[str, ...] = ("fp16", "int8")
    repeat: int = 100
    warmup: int = 10
    device: str = "cuda"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not re.fullmatch(r"cuda(:\d{1,3})?", self.device):
            raise ArgumentError(f"device must be 'cpu', 'cuda' or 'cuda:N', got {self.device!r}.")

    @property
    def number(self) -> int:
        """Which GPU."""
        return int(self.device.partition(":")[2] or 0)


@dataclass(frozen=True)
class GpuSubject:
    """Who runs a frame, and how."""

    engine: str
    """"scn-fx" or "spconv"."""
    precision: str
    graph: bool
    """Whether a CUDA graph is replayed."""


_SPCONV = GpuSubject("spconv", "fp16", False)


@dataclass
class _Bench:
    """The engines and the peer, made once for all frames."""

    settings: GpuSettings
    files: ModelFiles
    gpu: Gpu
    frame: Frame
    """The one that memory is measured with."""
    engines: dict[GpuSubject, Engine] = field(default_factory=dict)
    memory: list[dict[str, Any]] = field(default_factory=list)
    peer: Any = None
    left_out: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        arrays = self.gpu.upload(self.frame)
        wanted = dict.fromkeys((*self.settings.precisions, self.settings.layer_precision))
        for precision in wanted:
            for graph in (False, True):
                self._make(GpuSubject("scn-fx", precision, graph), arrays)
        if self.settings.spconv:
            try:
                peer = self.gpu.peer(self.files)
                peer.load(*arrays)
                peer()
                self.peer = peer
            except Exception as error:  # a build for another CUDA or GPU fails in ways of its own
                lines = str(error).strip().splitlines() or [type(error).__name__]
                self.left_out.append(f"spconv: {lines[0]}")

    def _make(self, subject: GpuSubject, arrays: tuple[Any, Any]) -> None:
        file, option = self.files.source(subject.precision)
        before = self.gpu.used_bytes()
        engine = self.gpu.engine(file, option, subject.graph)
        made = self.gpu.used_bytes()
        engine(*arrays, copy=False)
        engine.synchronize()
        self.engines[subject] = engine
        self.memory.append(
            {
                "precision": subject.precision,
                "graph": subject.graph,
                "construction_bytes": made - before,
                "first_frame_bytes": self.gpu.used_bytes() - before,
                "buffer_bytes": engine.describe()["buffer_bytes"],
            }
        )

    def time(self, frame: Frame) -> dict[GpuSubject, list[Sample]]:
        """All subjects in turn on one frame."""
        arrays = self.gpu.upload(frame)
        runs: dict[GpuSubject, Callable[[], Any]] = {}
        if self.peer is not None:
            self.peer.load(*arrays)
            runs[_SPCONV] = self.peer
        for subject, engine in self.engines.items():
            if subject.precision in self.settings.precisions:
                runs[subject] = partial(engine, *arrays, copy=False)
        found = in_turn(runs, self.gpu.measure, self.settings.repeat, warmup=self.settings.warmup)
        for engine in self.engines.values():
            engine.synchronize()
        return found


def run_gpu_bench(settings: GpuSettings, say: Callable[[str], None] = lambda text: None) -> dict[str, Any]:
    """Measure everything that `settings` asks for; `say` hears what is being done.

    Returns plain data; docs/how-to/benchmark.md describes its fields. Raises ArgumentError if there is no
    GPU, and the errors of frames, packages and engine (`ScnError`).
    """
    began = time.perf_counter()
    gpu = Gpu(settings.number)
    say("frames")
    chosen = find_frames(settings.frames, small=settings.small).select(settings.names)
    with ExitStack() as stack:
        workdir = settings.workdir or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        say("the network's files")
        files = find_model(workdir, small=settings.small)
        say("engines")
        frame = table_frame(chosen, settings)
        bench = _Bench(settings, files, gpu, frame)
        report: dict[str, Any] = {
            "format": 1,
            "device": {"name": gpu.name, "number": settings.number},
            "machine": describe_machine(),
            "settings": {
                "precisions": list(settings.precisions),
                "repeat": settings.repeat,
                "warmup": settings.warmup,
                "network": "small" if settings.small else "CenterPoint sparse encoder",
                "files": files.int8.parent.name,
            },
            "memory": {"frame": frame.name, "rows": bench.memory},
            "frames": [],
        }
        for one in chosen.frames:
            say(f"{one.name}, {len(one):,} voxels")
            row = {"frame": one.name, "source": one.source, "voxels": len(one)}
            report["frames"].append({**row, "runs": gpu_rows(bench.time(one))})
        say("stages")
        report["stages"] = _stages(bench)
        report["skipped"] = [*chosen.skipped, *bench.left_out]
    report["seconds"] = time.perf_counter() - began
    return report


def gpu_rows(samples: dict[GpuSubject, list[Sample]]) -> list[dict[str, Any]]:
    """One row per subject: for each clock milliseconds, and "speedup" over spconv of the same rounds."""
    timings = {
        subject: {clock: Timing(tuple(getattr(sample, clock) for sample in found)) for clock in CLOCKS}
        for subject, found in samples.items()
    }
    peer = timings.get(_SPCONV)
    return [
        {
            "engine": subject.engine,
            "precision": subject.precision,
            "graph": subject.graph,
            **{
                clock: {
                    "milliseconds": _milliseconds(timing),
                    "speedup": None if peer is None or subject == _SPCONV else _speedup(peer[clock], timing),
                }
                for clock, timing in of.items()
            },
        }
        for subject, of in timings.items()
    ]


def _milliseconds(timing: Timing) -> dict[str, Any]:
    low, high = np.percentile(timing.seconds, [10, 90])
    return {**timing.to_dict(), "p10": float(low) * 1e3, "p90": float(high) * 1e3}


def _speedup(peer: Timing, own: Timing) -> dict[str, float]:
    """Ratio of the medians, and how the ratios of single rounds spread."""
    low, high = np.percentile(np.divide(peer.seconds, own.seconds), [10, 90])
    return {"median": peer.median / own.median, "p10": float(low), "p90": float(high)}


def _stages(bench: _Bench) -> dict[str, Any]:
    """Of one precision; its multiply-accumulates are those that the CPU engine counts."""
    precision, frame = bench.settings.layer_precision, bench.frame
    engine = bench.engines[GpuSubject("scn-fx", precision, False)]
    arrays = bench.gpu.upload(frame)
    runs = bench.settings.warmup + bench.settings.repeat
    profiles = [engine.profile(*arrays) for _ in range(runs)][bench.settings.warmup :]
    steps = engine.describe()["steps"]
    file, option = bench.files.source(precision)
    counted = Engine(file, precision=option).profile(frame.features, frame.indices)
    rows = stage_rows(
        profiles,
        {step["name"]: step["precision"] for step in steps if step["kind"] == "convolution"},
        {stage.name: stage.macs for stage in counted if stage.kind == "convolution"},
        TENSOR_RATES.get(bench.gpu.name, {}),
    )
    return {
        "frame": frame.name,
        "voxels": len(frame),
        "precision": precision,
        "runs": len(profiles),
        "rows": [row.to_dict() for row in rows],
        "totals": {group: ms * 1e3 for group, ms in totals(profiles).items()},
    }
