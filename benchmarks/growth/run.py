# SPDX-License-Identifier: Apache-2.0
"""Times of CenterPoint's encoder by the engine and by spconv, from sparse frames to dense batches."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import onnx

from benchmarks.growth.frames import Batch, Size, make_batch
from benchmarks.speed.peers import one_thread
from scn_fx.bench.common import Say, silent
from scn_fx.bench.gpu.device import Gpu
from scn_fx.bench.layers import active_pairs, weight_widths
from scn_fx.bench.machine import describe_machine
from scn_fx.bench.model import ModelFiles, prepare_model
from scn_fx.bench.timing import Timing, deciles, extremes, in_turn, interleaved, ratio
from scn_fx.files.atomic import write_file
from scn_fx.files.onnx_models import ONNX_FILE, read_model
from scn_fx.files.reading import read_file
from scn_fx.runtime import Engine

__all__ = ["PRECISIONS", "Subject", "run_growth"]

PRECISIONS = {"cpu": ("fp32", "fp16", "int8"), "cuda": ("fp16", "int8")}

Runs = dict["Subject", Callable[[], Any]]


@dataclass(frozen=True)
class Subject:
    """Who runs a batch."""

    engine: str
    """"scn-fx" or "spconv"."""
    precision: str


def run_growth(
    sizes: Sequence[Size],
    *,
    device: str = "cpu",
    number: int = 0,
    repeat: int,
    warmup: int = 1,
    small: bool = False,
    workdir: Path | None = None,
    say: Say = silent,
) -> dict[str, Any]:
    """Time every size; docs/how-to/benchmark.md describes the plain data that this returns.

    Args:
        sizes: what `benchmarks.growth.frames.sizes_of` returns.
        device: "cpu" or "cuda".
        number: which GPU.
        repeat: rounds that count.
        warmup: rounds before them.
        small: a narrow network on a small grid.
        workdir: keeps the network's files; None makes them anew.
        say: hears what is being done.

    Raises ArgumentError if there is no such GPU or a size is too large, and the errors of the engine.
    """
    began = time.perf_counter()
    gpu = Gpu(number) if device == "cuda" else None
    skipped: list[str] = []
    frames = []
    with tempfile.TemporaryDirectory() as folder:
        say("the network's files")
        files = prepare_model(workdir or Path(folder), small=small)
        files = _widened(files, 2 * max(size.batch * size.voxels for size in sizes), Path(folder))
        peer, missing = _peer(files, gpu)
        skipped += missing
        counter = Engine(files.int8)
        widths = weight_widths(read_model(files.int8))
        for size in sizes:
            batch = make_batch(size, small=small)
            say(f"{len(batch):,} voxels in a batch of {size.batch}")
            stages = counter.profile(batch.features, batch.indices, size.batch)
            pairs = active_pairs(stages, widths)
            with nullcontext() if gpu else one_thread():
                runs, engines, left_out = _subjects(batch, files, peer, gpu, number)
                clocks = _timed(runs, gpu, repeat, warmup)
                for engine in engines:
                    engine.synchronize()
            skipped += left_out
            rows = _rows(clocks, pairs, deciles if gpu else extremes)
            frames.append({**asdict(size), "voxels_in_all": len(batch), "active_pairs": pairs, "runs": rows})
    return {
        "format": 1,
        "device": gpu.name if gpu else "cpu",
        "machine": describe_machine(),
        "settings": {
            "repeat": repeat,
            "warmup": warmup,
            "network": "small" if small else "CenterPoint sparse encoder",
        },
        "frames": frames,
        "skipped": list(dict.fromkeys(skipped)),
        "seconds": time.perf_counter() - began,
    }


def _widened(files: ModelFiles, sites: int, folder: Path) -> ModelFiles:
    """The same network for batches: files whose layers may have `sites` sites at least."""
    made = []
    for source in (files.int8, files.single):
        model = onnx.ModelProto.FromString(read_file(source, ONNX_FILE))
        for node in model.graph.node:
            for attribute in node.attribute:
                if attribute.name == "output_bound":
                    attribute.i = max(attribute.i, sites)
        made.append(folder / source.name)
        write_file(made[-1], model.SerializeToString())
    return replace(files, int8=made[0], single=made[1])


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _peer(files: ModelFiles, gpu: Gpu | None) -> tuple[Any, list[str]]:
    """spconv's encoder, or None and a sentence why not."""
    from scn_fx.bench.peer import SpconvPeer

    try:
        return (gpu.peer(files) if gpu else SpconvPeer(files)), []
    except Exception as error:  # a build for another CUDA or GPU fails in ways of its own
        return None, [f"spconv: {_first_line(error)}"]


def _subjects(
    batch: Batch, files: ModelFiles, peer: Any, gpu: Gpu | None, number: int
) -> tuple[Runs, list[Engine], list[str]]:
    """What is timed, the engines among it, and a sentence if spconv does not run this batch."""
    runs: Runs = {}
    engines = []
    skipped = []
    features, indices = gpu.upload(batch) if gpu else (batch.features, batch.indices)
    frames = batch.size.batch
    if peer is not None:
        run = peer if gpu else partial(peer, 1)
        try:
            peer.load(features, indices, frames)
            run()
        except Exception as error:  # as above; a GPU's memory may not suffice
            skipped.append(f"spconv, {len(batch):,} voxels: {_first_line(error)}")
        else:
            runs[Subject("spconv", "fp16" if gpu else "fp32")] = run
    for precision in PRECISIONS["cuda" if gpu else "cpu"]:
        file, option = files.source(precision)
        if gpu:
            engine = _gpu_engine(file, option, batch, number)
        else:
            engine = Engine(file, precision=option, threads=1)
        runs[Subject("scn-fx", precision)] = partial(engine, features, indices, frames, copy=gpu is None)
        engines.append(engine)
    return runs, engines, skipped


def _gpu_engine(file: Path, precision: str | None, batch: Batch, number: int) -> Engine:
    """An engine for this batch: one for the largest would reserve its memory."""
    return Engine(
        file,
        f"cuda:{number}",
        precision=precision,
        max_batch_size=batch.size.batch,
        max_voxels=2 * len(batch),  # strided layers have more sites than the frame
    )


def _timed(runs: Runs, gpu: Gpu | None, repeat: int, warmup: int) -> dict[Subject, dict[str, Timing]]:
    if gpu is None:
        found = interleaved(runs, repeat, warmup=warmup)
        return {subject: {"wall": timing} for subject, timing in found.items()}
    samples = in_turn(runs, gpu.measure, repeat, warmup=warmup)
    return {
        subject: {clock: Timing(tuple(getattr(one, clock) for one in made)) for clock in ("event", "wall")}
        for subject, made in samples.items()
    }


def _rows(
    clocks: Mapping[Subject, Mapping[str, Timing]],
    pairs: int,
    spread: Callable[[Sequence[float]], dict[str, float]],
) -> list[dict[str, Any]]:
    """For each subject and clock milliseconds, those of a million pairs, and "speedup" over spconv."""
    peer = next((found for subject, found in clocks.items() if subject.engine == "spconv"), None)
    rows = []
    for subject, found in clocks.items():
        row: dict[str, Any] = asdict(subject)
        for clock, timing in found.items():
            own = subject.engine == "spconv"
            row[clock] = {
                "milliseconds": {**timing.to_dict(), **spread([s * 1e3 for s in timing.seconds])},
                "ms_per_million_pairs": timing.median * 1e9 / pairs if pairs else None,
                "speedup": None if peer is None or own else ratio(peer[clock], timing, spread),
            }
        rows.append(row)
    return rows
