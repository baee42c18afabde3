# SPDX-License-Identifier: Apache-2.0
"""Batches of synthetic scenes: layouts drawn by worker processes, measured and voxelised on the device."""

from __future__ import annotations

import queue
import signal
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from examples.detector.targets import Targets, targets
from scn_fx.lidar.boxes import MIN_POINTS
from scn_fx.lidar.grids import VoxelGrid
from scn_fx.lidar.raycast import Measurement, SceneArrays, measure
from scn_fx.lidar.torch_voxels import voxelize_batch

__all__ = ["Batch", "batches", "layouts", "make_batch", "seeds"]

_AHEAD = 3  # batches that wait for the network, at most


@dataclass(frozen=True)
class Batch:
    """What one step of training takes."""

    features: torch.Tensor
    """float32 [N, 5], rounded to float16 as a runtime's are."""
    indices: torch.Tensor
    """int32 [N, 4]: (batch, z, y, x)."""
    targets: Targets
    size: int
    """Frames."""

    def tensors(self) -> list[torch.Tensor]:
        """All tensors of the batch."""
        return [self.features, self.indices, *(getattr(self.targets, f.name) for f in fields(self.targets))]


class _Scenes(Dataset[SceneArrays]):
    """Scenes by seed."""

    def __init__(self, thin: int) -> None:
        self._thin = thin

    def __getitem__(self, seed: int) -> SceneArrays:
        return SceneArrays.traffic(seed).thinned(self._thin)


def _undisturbed(_: int) -> None:
    """Ctrl-C and a time limit reach every process; only the training itself should act on them."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _same(scenes: list[SceneArrays]) -> list[SceneArrays]:
    return scenes


def seeds(step: int, batch_size: int, rank: int = 0, world: int = 1) -> Iterator[list[int]]:
    """The seeds of each batch of `rank` from `step` on, without end: every process has others."""
    while True:
        first = (step * world + rank) * batch_size
        yield list(range(first, first + batch_size))
        step += 1


def layouts(numbers: Iterable[list[int]], workers: int, thin: int = 1) -> Iterator[list[SceneArrays]]:
    """The scenes of lists of seeds, in order, drawn by `workers` processes (0: by this one).

    Only every `thin`-th column of rays is kept.
    """
    ahead = {"prefetch_factor": 4, "persistent_workers": False} if workers else {}
    loader = DataLoader(
        _Scenes(thin),
        batch_sampler=numbers,
        collate_fn=_same,
        num_workers=workers,
        worker_init_fn=_undisturbed,
        **ahead,  # type: ignore[arg-type]
    )
    return iter(loader)


def make_batch(scenes: list[SceneArrays], grid: VoxelGrid, device: torch.device) -> Batch:
    """Measure, voxelise and label scenes on `device`."""
    made = [measure(scene, device) for scene in scenes]
    half, indices = voxelize_batch([m.points for m in made], grid, dtype=torch.float16)
    return Batch(half.float(), indices, _labels(made, grid, device), len(scenes))


def _labels(made: list[Measurement], grid: VoxelGrid, device: torch.device) -> Targets:
    def joined(arrays: list[np.ndarray]) -> torch.Tensor:
        return torch.from_numpy(np.concatenate(arrays)).to(device)

    numbers = [np.full(len(m.centre), i) for i, m in enumerate(made)]
    return targets(
        frame=joined(numbers),
        centre=torch.cat([m.centre for m in made]),
        size=joined([m.scene.boxes.size for m in made]),
        yaw=torch.cat([m.yaw for m in made]),
        velocity=torch.cat([m.velocity for m in made]),
        label=joined([m.scene.boxes.label for m in made]),
        counts=torch.cat([m.returns for m in made]) >= MIN_POINTS,
        frames=len(made),
        grid=grid,
    )


def batches(scenes: Iterator[list[SceneArrays]], grid: VoxelGrid, device: torch.device) -> Iterator[Batch]:
    """Batches on `device`; on a GPU they are made ahead, by another thread on a stream of its own."""
    if device.type != "cuda":
        for some in scenes:
            yield make_batch(some, grid, device)
        return
    waiting: queue.Queue[tuple[Batch, torch.cuda.Event] | BaseException] = queue.Queue(_AHEAD)
    stop = threading.Event()
    stream = torch.cuda.Stream(device)

    def produce() -> None:
        try:
            torch.cuda.set_device(device)
            for some in scenes:
                with torch.cuda.stream(stream):
                    batch = make_batch(some, grid, device)
                    made = torch.cuda.Event()
                    made.record(stream)
                while not stop.is_set():
                    try:
                        waiting.put((batch, made), timeout=0.2)
                        break
                    except queue.Full:
                        continue
                if stop.is_set():
                    return
        except BaseException as error:  # handed to the thread that asked for batches
            waiting.put(error)

    thread = threading.Thread(target=produce, daemon=True, name="scenes")
    thread.start()
    try:
        while True:
            item = waiting.get()
            if isinstance(item, BaseException):
                raise item
            batch, made = item
            current = torch.cuda.current_stream(device)
            current.wait_event(made)
            for tensor in batch.tensors():
                tensor.record_stream(current)  # its memory may not go back to the other stream before
            yield batch
    finally:
        stop.set()
        while not waiting.empty():
            waiting.get_nowait()
        thread.join(timeout=30)
