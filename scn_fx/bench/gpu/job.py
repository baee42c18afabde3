# SPDX-License-Identifier: Apache-2.0
"""The whole benchmark on a GPU: from settings to a report of plain data."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from scn_fx.bench.common import Say, described, prepared, silent, table_frame
from scn_fx.bench.gpu.device import Gpu, Sample
from scn_fx.bench.gpu.stages import TENSOR_RATES, stage_rows
from scn_fx.bench.layers import convolves, totals
from scn_fx.bench.machine import describe_machine
from scn_fx.bench.model import ModelFiles, find_model
from scn_fx.bench.settings import GpuSettings
from scn_fx.bench.timing import Timing, deciles, in_turn, ratio
from scn_fx.lidar import Frame
from scn_fx.runtime import Engine

__all__ = ["GpuSubject", "gpu_rows", "run_gpu_bench"]

CLOCKS = ("event", "wall")
_Clocks = dict[str, Timing]


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


def run_gpu_bench(settings: GpuSettings, say: Say = silent) -> dict[str, Any]:
    """Measure everything that `settings` asks for.

    Returns plain data; docs/how-to/benchmark.md describes its fields. Raises ArgumentError if there is no
    GPU, and the errors of frames, packages and engine (`ScnError`).
    """
    began = time.perf_counter()
    gpu = Gpu(settings.number)
    with prepared(settings, find_model, say) as (chosen, files):
        say("engines")
        frame = table_frame(chosen, settings)
        bench = _Bench(settings, files, gpu, frame)
        report: dict[str, Any] = {
            "format": 1,
            "device": {"name": gpu.name, "number": settings.number},
            "machine": describe_machine(),
            "settings": {**settings.to_dict(), "files": files.int8.parent.name},
            "memory": {"frame": frame.name, "rows": bench.memory},
            "frames": [{**described(one, say), "runs": gpu_rows(bench.time(one))} for one in chosen.frames],
        }
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
    peer = timings.pop(_SPCONV, None)
    own = [_row(subject, timing, peer) for subject, timing in timings.items()]
    return own if peer is None else [_row(_SPCONV, peer, None), *own]


def _row(subject: GpuSubject, timings: _Clocks, peer: _Clocks | None) -> dict[str, Any]:
    clocks = {
        clock: {
            "milliseconds": {**timing.to_dict(), **deciles([s * 1e3 for s in timing.seconds])},
            "speedup": None if peer is None else ratio(peer[clock], timing, deciles),
        }
        for clock, timing in timings.items()
    }
    return {**asdict(subject), **clocks}


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
        {step["name"]: step["precision"] for step in steps if convolves(step["kind"])},
        {stage.name: stage.macs for stage in counted if convolves(stage.kind)},
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
