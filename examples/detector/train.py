# SPDX-License-Identifier: Apache-2.0
"""Train the detector: ``python -m examples.detector.train --minutes 9`` on one GPU, `torchrun` on several.

Scenes are made as they are needed and none is seen twice. The state is saved every --save-every seconds and
when the run is interrupted; the same command goes on from there. In the end the float16 checkpoint is
written and evaluated on held-out scenes.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from examples.detector.data import batches, layouts, seeds
from examples.detector.evaluate import evaluate_detector, write_report
from examples.detector.model import DetectorInTraining
from examples.detector.processes import Team, team
from examples.detector.profile import Stopwatch
from examples.detector.state import Progress, load_state, save_state
from examples.detector.targets import loss
from scn_fx.detection import load_detector, save_detector
from scn_fx.errors import ArgumentError, ScnError
from scn_fx.files.atomic import check_writable
from scn_fx.lidar.grids import CENTERPOINT_GRID, VoxelGrid

__all__ = ["Settings", "main", "train"]

TINY_GRID = VoxelGrid((-19.2, -19.2, -5.0, 19.2, 19.2, 3.0), (0.6, 0.6, 0.2))
"""For tests: 64 x 64 x 40 voxels."""

_TINY_THIN = 16

_DECAY = 0.01
_CLIP = 10.0
_WARM = 0.2  # share of the training in which the learning rate rises


@dataclass(frozen=True)
class Settings:
    """What a training does."""

    output: Path
    state: Path
    minutes: float | None = None
    """Length by time, or"""
    steps: int | None = None
    """by steps (repeatable to the bit on the CPU)."""
    batch_size: int = 4
    rate: float = 2e-3
    """Highest learning rate."""
    device: str = "cuda"
    workers: int = 0
    tiny: bool = False
    evaluate: int = 500
    save_every: float = 60.0
    say_every: float = 10.0
    profile: bool = False
    limit: int | None = None
    """Stop after this many steps without finishing, as if interrupted."""

    @property
    def grid(self) -> VoxelGrid:
        """Of the network."""
        return TINY_GRID if self.tiny else CENTERPOINT_GRID

    @property
    def thin(self) -> int:
        """Every how many columns of rays one is kept."""
        return _TINY_THIN if self.tiny else 1

    def config(self, world: int) -> dict[str, Any]:
        """What must be the same when a training is resumed; minutes may be added."""
        return {
            "batch_size": self.batch_size,
            "rate": self.rate,
            "tiny": self.tiny,
            "steps": self.steps,
            "processes": world,
        }


def _fresh(settings: Settings) -> DetectorInTraining:
    torch.manual_seed(0)
    channels, width = ((4, 8, 8, 8), 8) if settings.tiny else ((16, 32, 64, 128), 64)
    return DetectorInTraining.fresh(settings.grid, channels, width)


def _rate(part: float, highest: float) -> float:
    """One cycle: up from a tenth, then down to almost nothing, both along a cosine; `part` from 0 to 1."""
    if part < _WARM:
        return highest * (0.1 + 0.9 * 0.5 * (1 - math.cos(math.pi * part / _WARM)))
    return highest * (1e-3 + (1 - 1e-3) * 0.5 * (1 + math.cos(math.pi * (part - _WARM) / (1 - _WARM))))


@contextmanager
def _interruptions() -> Iterator[list[int]]:
    """Within: SIGINT and SIGTERM are noted in the list, so that a step is not torn apart."""
    noted: list[int] = []
    before = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.signal(number, lambda came, _: noted.append(came))
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say(team_: Team, text: str) -> None:
    if team_.leads:
        print(text, flush=True)


def _part(progress: Progress, total: float | None, steps: int | None) -> float:
    """The share of the training that is done, 0 to 1."""
    return min(1.0, progress.seconds / total if total else progress.step / (steps or 1))


def train(settings: Settings) -> bool:
    """Train until the end or an interruption; whether it is the end. Then the checkpoint is written.

    Raises ArgumentError for settings that cannot work, a state of another configuration, or a training that
    diverges; WriteError where a file cannot be written.
    """
    if (settings.minutes is None) == (settings.steps is None):
        raise ArgumentError("Expected either --minutes or --steps, which say how long to train.")
    for path in (settings.output, settings.state):
        check_writable(path)
    with team(settings.device) as mates, _interruptions() as interruptions:
        return _train(settings, mates, interruptions)


def _train(settings: Settings, mates: Team, interruptions: list[int]) -> bool:
    config, progress = settings.config(mates.world), Progress()
    network = _fresh(settings).to(mates.device)
    if mates.device.type == "cuda":
        network.head.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        torch.backends.cuda.matmul.allow_tf32 = True  # three digits do for gradients; evaluation has all
        torch.backends.cudnn.benchmark = True  # maps have one shape: the fastest algorithm is found once
    optimizer = torch.optim.AdamW(network.parameters(), settings.rate, (0.9, 0.99), weight_decay=_DECAY)
    if settings.state.exists():
        progress = load_state(settings.state, network, optimizer, config)
        _say(mates, f"Going on from step {progress.step} after {progress.seconds:.0f} s ({settings.state}).")
    mates.same_start(network)
    network.train()

    def save() -> None:
        mates.mean_statistics(network)
        if mates.leads:
            save_state(settings.state, network, optimizer, progress, config)

    numbers = seeds(progress.step, settings.batch_size, mates.rank, mates.world)
    stream = batches(layouts(numbers, settings.workers, settings.thin), settings.grid, mates.device)
    watch = Stopwatch(mates.device, settings.profile)
    total = 60 * settings.minutes if settings.minutes is not None else None
    earlier, began = progress.seconds, time.perf_counter()
    saved = said = began
    first, shown = progress.step, torch.zeros(3, device=mates.device)
    counted, voxels = 0, 0
    finished = False
    try:
        while True:
            part = mates.agreed(_part(progress, total, settings.steps))
            if part >= 1:
                finished = True
                break
            stop = bool(interruptions) or progress.step - first == settings.limit
            if mates.agreed(float(stop)):
                break
            with watch("waiting for scenes"):
                batch = next(stream)
            for group in optimizer.param_groups:
                group["lr"] = _rate(part, settings.rate)
            optimizer.zero_grad(set_to_none=True)
            with watch("encoder forward"):
                dense = network.dense(batch.features, batch.indices, batch.size)
            with watch("head and loss"):
                found = loss(network.heads(dense), batch.targets)
            with watch("backward"):
                found.total.backward()
            with watch("optimiser"):
                mates.mean_gradients(network)
                torch.nn.utils.clip_grad_norm_(network.parameters(), _CLIP)
                optimizer.step()
            shown += torch.stack([found.total, found.heat, found.box]).detach()
            counted, voxels = counted + 1, voxels + len(batch.indices)
            now = time.perf_counter()
            progress.step, progress.seconds = progress.step + 1, earlier + now - began
            if now - said >= settings.say_every:
                means = (shown / counted).tolist()
                if not math.isfinite(means[0]):
                    raise ArgumentError(
                        f"The training has diverged at step {progress.step}: the loss is {means[0]}. Start "
                        f"it again with a --rate below {settings.rate:g}, and another --state."
                    )
                speed = counted * settings.batch_size * mates.world / (now - said)
                spent = _part(progress, total, settings.steps)
                left = progress.seconds * (1 - spent) / max(spent, 1e-6)
                _say(
                    mates,
                    f"step {progress.step}  loss {means[0]:.3f} (heat {means[1]:.3f}, box {means[2]:.3f})  "
                    f"rate {optimizer.param_groups[0]['lr']:.1e}  {speed:.1f} scenes/s, "
                    f"{voxels / (counted * settings.batch_size):,.0f} voxels each  {100 * spent:.0f} %, "
                    f"{left:.0f} s left",
                )
                said, counted, voxels = now, 0, 0
                shown.zero_()
            # By the first process's clock, as saving is an exchange.
            if mates.agreed(float(now - saved >= settings.save_every)):
                save()
                saved = time.perf_counter()
    finally:
        stream.close()  # type: ignore[attr-defined]  # it is a generator
    save()
    if settings.profile:
        _say(mates, watch.table())
    if not finished:
        _say(mates, f"Stopped after step {progress.step}; the same command goes on from {settings.state}.")
        return False
    if mates.leads:
        save_detector(settings.output, network.detector())
        _say(
            mates,
            f"{settings.output}: {os.path.getsize(settings.output) / 1e6:.2f} MB, after {progress.step} "
            f"steps of {settings.batch_size * mates.world} scenes in {progress.seconds:.0f} s.",
        )
    if settings.evaluate:
        scored = evaluate_detector(
            load_detector(settings.output) if mates.leads else network.detector(),
            settings.evaluate,
            settings.grid,
            mates,
            workers=settings.workers,
            thin=settings.thin,
        )
        if mates.leads:
            print(scored, flush=True)
            write_report(settings.output.with_suffix(".json"), scored, settings.output)
    return True


def _arguments(argv: list[str] | None) -> Settings:
    parser = argparse.ArgumentParser(prog="python -m examples.detector.train", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("detector.npz"), help="the float16 checkpoint")
    parser.add_argument("--state", type=Path, help="state to resume from [default: OUTPUT with .state.npz]")
    parser.add_argument("--minutes", type=float, help="train this long, all runs together")
    parser.add_argument("--steps", type=int, help="or this many steps")
    parser.add_argument("--batch-size", type=int, default=4, help="scenes of each process in a step")
    parser.add_argument("--rate", type=float, default=2e-3, help="highest learning rate of the cycle")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--workers", type=int, help="processes that draw scenes [default: CPUs - 2]")
    parser.add_argument("--tiny", action="store_true", help="a narrow network on a small grid, for a try")
    parser.add_argument("--evaluate", type=int, default=500, help="held-out scenes in the end; 0 for none")
    parser.add_argument("--save-every", type=float, default=60.0, help="seconds between saved states")
    parser.add_argument("--say-every", type=float, default=10.0, help="seconds between lines of progress")
    parser.add_argument("--profile", action="store_true", help="time the parts of a step (slows it down)")
    given = parser.parse_args(argv)
    for name in ("minutes", "steps", "batch_size", "rate"):
        value = getattr(given, name)
        if value is not None and not value > 0:
            raise ArgumentError(f"--{name.replace('_', '-')} must be > 0, got {value:g}.")
    if given.evaluate < 0 or (given.workers or 0) < 0:
        raise ArgumentError("--evaluate and --workers must not be negative.")
    values = vars(given)
    values["state"] = given.state or given.output.with_suffix(".state.npz")
    if given.workers is None:
        world = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        values["workers"] = max(0, len(os.sched_getaffinity(0)) // world - 2)
    return Settings(**values)


def main(argv: list[str] | None = None) -> int:
    """0 when the training is complete, 3 when it was interrupted, 1 after an error."""
    try:
        return 0 if train(_arguments(argv)) else 3
    except ScnError as error:
        print(json.dumps(str(error))[1:-1].replace('\\"', '"'), file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
