# SPDX-License-Identifier: Apache-2.0
"""Times from points to voxels and to the map, of the engine and of spconv, in turn on one frame."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from scn_fx.bench.common import Say, silent
from scn_fx.bench.frames import FRAME_COLUMNS, SMALL_GRID
from scn_fx.bench.gpu.device import Gpu
from scn_fx.bench.machine import describe_machine
from scn_fx.bench.model import ModelFiles, find_model
from scn_fx.bench.timing import Timing, deciles, extremes, in_turn, interleaved, ratio
from scn_fx.errors import ArgumentError
from scn_fx.lidar import CENTERPOINT_GRID, VoxelGrid, read_sweep, synthetic_points, voxelize
from scn_fx.runtime import Engine

__all__ = ["run_points"]

VOXELS, MAP, MAP_OF_VOXELS = "points to voxels", "points to map", "voxels to map"

Subject = tuple[str, str]
"""Who, and from what to what."""


def run_points(
    file: Path | None,
    layout: str | None,
    *,
    device: str,
    threads: int,
    repeat: int,
    small: bool,
    workdir: Path,
    say: Say = silent,
) -> dict[str, Any]:
    """Time every subject; plain data: "runs" with milliseconds and how many times faster than spconv each is.

    Args:
        file: of points with five columns; None takes synthetic sweeps.
        layout: its format; None guesses.
        device: "cpu", "cuda" or "cuda:N".
        threads: of a CPU.
        repeat: rounds that count.
        small: a narrow network on a small grid, to try it.
        workdir: keeps the network's files.
        say: hears what is being done.

    Raises ArgumentError for a device that cannot be used or a file of other columns, LidarError for a file
    that cannot be read.
    """
    points = _points(file, layout, small)
    say("the network's files")
    files = find_model(workdir, small=small)
    grid = _small_grid() if small else CENTERPOINT_GRID
    gpu = None if device == "cpu" else Gpu(int(device.partition(":")[2] or 0))
    frame = voxelize(points, grid)
    say(f"{len(points):,} points, {len(frame):,} voxels")
    runs, notes = _subjects(files, grid, points, gpu, threads)
    samples: dict[str, dict[Subject, Timing]]
    if gpu is None:
        samples = {"wall": interleaved(runs, repeat)}
    else:
        found = in_turn(runs, gpu.measure, repeat, warmup=10)
        samples = {
            clock: {key: Timing(tuple(getattr(one, clock) for one in made)) for key, made in found.items()}
            for clock in ("event", "wall")
        }
    spread = extremes if gpu is None else deciles
    return {
        "format": 1,
        "device": gpu.name if gpu else "cpu",
        "machine": describe_machine(),
        "frame": {"points": len(points), "voxels": len(frame), "columns": points.shape[1]},
        "settings": {"repeat": repeat, "threads": threads, "network": "small" if small else "full"},
        "runs": [_row(key, samples, spread) for key in runs],
        "notes": notes,
    }


def _row(
    key: Subject, samples: dict[str, dict[Subject, Timing]], spread: Callable[[Any], dict[str, float]]
) -> dict[str, Any]:
    engine, what = key
    row: dict[str, Any] = {"engine": engine, "what": what}
    for clock, timings in samples.items():
        own, peer = timings[key], timings.get(("spconv", what))
        row[clock] = {
            "milliseconds": {"median": own.median * 1e3, **spread([s * 1e3 for s in own.seconds])},
            "speedup": ratio(peer, own, spread) if peer and engine != "spconv" else None,
        }
    return row


def _subjects(
    files: ModelFiles, grid: VoxelGrid, points: npt.NDArray[np.float32], gpu: Gpu | None, threads: int
) -> tuple[dict[Subject, Callable[[], Any]], list[str]]:
    """What is timed, and sentences about what is not."""
    notes: list[str] = []
    where = "cpu" if gpu is None else "cuda"
    engine = Engine(files.int8, where, threads=threads, grid=grid)
    tensor = torch.from_numpy(points)
    tensor = tensor if gpu is None else tensor.cuda()
    runs: dict[Subject, Callable[[], Any]] = {}
    frame: Any = engine.voxelize(points)
    if gpu is None:
        runs["scn-fx int8", VOXELS] = partial(engine.voxelize, points)
        runs["scn-fx int8", MAP] = partial(engine.run_points, points)
        runs["scn-fx int8", MAP_OF_VOXELS] = partial(engine, *frame)
    else:
        frame = gpu.upload(frame)
        runs["scn-fx int8", MAP] = partial(engine.run_points, tensor, copy=False)
        runs["scn-fx int8", MAP_OF_VOXELS] = partial(engine, *frame, copy=False)
        notes.append(
            "on a GPU the engine's voxels never leave their graph: the difference of both maps is theirs"
        )
    try:
        from benchmarks.points.peer import SpconvPoints

        peer = SpconvPoints(files, grid, str(tensor.device), points.shape[1], len(points))
        peer.map(tensor, threads)
    except Exception as error:  # a build for another CUDA or GPU fails in ways of its own
        lines = str(error).strip().splitlines() or [type(error).__name__]
        notes.append(f"spconv is left out: {lines[0]}")
    else:
        runs["spconv", VOXELS] = partial(peer.voxels, tensor)
        runs["spconv", MAP] = partial(peer.map, tensor, threads)
    return runs, notes


def _points(file: Path | None, layout: str | None, small: bool) -> npt.NDArray[np.float32]:
    if file is None:
        return synthetic_points(sweeps=1 if small else 10).astype(np.float32)
    points = read_sweep(file, layout).astype(np.float32)
    if points.shape[1] != FRAME_COLUMNS:
        raise ArgumentError(
            f"The benchmark's network takes points of {FRAME_COLUMNS} columns, {file} has {points.shape[1]}. "
            "Name another file, or leave it out for synthetic sweeps."
        )
    return points


def _small_grid() -> VoxelGrid:
    x, y, z = SMALL_GRID
    edge = CENTERPOINT_GRID.voxel_size
    low = (-x * edge[0] / 2, -y * edge[1] / 2, CENTERPOINT_GRID.point_range[2])
    return VoxelGrid((*low, -low[0], -low[1], low[2] + z * edge[2]), edge)
