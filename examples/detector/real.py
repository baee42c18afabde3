# SPDX-License-Identifier: Apache-2.0
"""Fine-tune and evaluate on a labelled real drive: ``python -m examples.detector.real detector.npz``.

The drive, `frames/kitti_0005.npz` in the folder that SCN_FX_DATA names, has 154 sweeps of a 64-beam sensor in
the camera's view, with nine cars, three vans, two pedestrians and a cyclist. It is split in time: the first
part is for fine-tuning, the last for evaluation, and a gap between them is left out; some objects are in both
parts. The figures show that the way from synthetic to real frames works, and are no statistics. Each is given
with the encoder in float32 and in int8.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import sys
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

import scn_fx
from examples.detector.data import Batch
from examples.detector.model import DetectorInTraining
from examples.detector.targets import loss, targets
from scn_fx import quant
from scn_fx.detection import (
    AveragePrecision,
    Detector,
    EncoderFunction,
    LabelledFrame,
    encoder_function,
    evaluate,
    load_detector,
    save_detector,
)
from scn_fx.errors import ArgumentError, ScnError
from scn_fx.files.arrays import open_npz
from scn_fx.files.atomic import check_writable, write_file
from scn_fx.lidar.boxes import CLASSES, MIN_POINTS, Boxes
from scn_fx.lidar.frames import DATA_VARIABLE
from scn_fx.lidar.grids import CENTERPOINT_GRID, VoxelGrid
from scn_fx.lidar.torch_voxels import voxelize_batch

__all__ = ["Sweep", "fine_tune", "main", "quantised", "read_drive", "split"]

_CLASS_OF = (0, 1, 2, 3, -1, 4, -1, -1)
"""The detector's class of each of the file's (Car, Van, Truck, Pedestrian, Person, Cyclist, Tram, Misc)."""

_TUNED, _GAP = 0.6, 0.06  # shares of the drive


@dataclass(frozen=True, eq=False)
class Sweep:
    """One sweep and its labels."""

    points: npt.NDArray[np.float32]
    """[N, 5]: x, y, z in metres, intensity 0..255, time lag 0."""
    boxes: Boxes


def read_drive(path: Path) -> list[Sweep]:
    """The sweeps of the drive, in time. Raises ArgumentError for a file that is not of this kind."""
    with open_npz(path, ArgumentError) as archive:
        names = ("xyz_4mm", "reflectance_255", "frame_start", "box_frame", "box_class", "box_xyzlwh_yaw")
        missing = [name for name in (*names, "box_points") if name not in archive.names]
        if missing:
            raise ArgumentError(f"{path} has no array {missing[0]!r}: expected the drive kitti_0005.npz.")
        xyz, reflectance, start, of, kind, box = (archive[name] for name in names)
        points = archive["box_points"]
    sweeps = []
    for frame, (low, high) in enumerate(pairwise(start)):
        columns = np.zeros((high - low, 5), np.float32)
        columns[:, :3] = xyz[low:high].astype(np.float32) * np.float32(0.004)
        columns[:, 3] = reflectance[low:high]
        label = np.asarray(_CLASS_OF)[kind]
        mine = (of == frame) & (label >= 0)
        rows = box[mine]
        boxes = Boxes.of(rows[:, :3], rows[:, 3:6], rows[:, 6], label[mine], points=points[mine])
        sweeps.append(Sweep(columns, boxes))
    return sweeps


def split(sweeps: list[Sweep]) -> tuple[list[Sweep], list[Sweep]]:
    """The first part, to fine-tune on, and the last, to evaluate."""
    tuned, gap = int(_TUNED * len(sweeps)), int(_GAP * len(sweeps))
    return sweeps[:tuned], sweeps[tuned + gap :]


def _turned(sweep: Sweep, angle: float, mirrored: bool) -> Sweep:
    """The sweep as another car would see it: mirrored at the x axis, turned about z."""
    points, boxes = sweep.points.copy(), sweep.boxes
    centre, yaw = boxes.centre.copy(), boxes.yaw.copy()
    if mirrored:
        points[:, 1] *= -1
        centre[:, 1] *= -1
        yaw = -yaw
    cos, sin = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    turn = np.array([[cos, sin], [-sin, cos]])
    points[:, :2], centre[:, :2] = points[:, :2] @ turn, centre[:, :2] @ turn
    return Sweep(points, replace(boxes, centre=centre, yaw=yaw + np.float32(angle)))


def _batch(sweeps: list[Sweep], grid: VoxelGrid, device: torch.device) -> Batch:
    frames = [torch.from_numpy(sweep.points).to(device) for sweep in sweeps]
    features, indices = voxelize_batch(frames, grid, dtype=torch.float16)

    def joined(name: str) -> torch.Tensor:
        return torch.from_numpy(np.concatenate([getattr(s.boxes, name) for s in sweeps])).to(device)

    numbers = np.concatenate([np.full(len(sweep.boxes), i) for i, sweep in enumerate(sweeps)])
    wanted = targets(
        frame=torch.from_numpy(numbers).to(device),
        centre=joined("centre"),
        size=joined("size"),
        yaw=joined("yaw"),
        velocity=joined("velocity"),
        label=joined("label"),
        counts=joined("points") >= MIN_POINTS,
        frames=len(sweeps),
        grid=grid,
    )
    return Batch(features.float(), indices, wanted, len(sweeps))


def fine_tune(
    detector: Detector, sweeps: list[Sweep], steps: int, device: torch.device, grid: VoxelGrid
) -> Detector:
    """The detector after `steps` of four turned sweeps each; statistics of BatchNorm stay as they are.

    The velocity of boxes is not labelled and left to 0. Equal arguments give equal draws.
    """
    network = DetectorInTraining.of(detector).to(device).train()
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()  # a hundred sweeps of one drive would replace what thousands of scenes taught
    optimizer = torch.optim.AdamW(network.parameters(), 2e-4, (0.9, 0.99), weight_decay=0.01)
    random = np.random.Generator(np.random.PCG64(0))
    for step in range(steps):
        chosen = [
            _turned(sweeps[int(i)], float(random.uniform(-math.pi, math.pi)), bool(random.random() < 0.5))
            for i in random.integers(0, len(sweeps), 4)
        ]
        batch = _batch(chosen, grid, device)
        for group in optimizer.param_groups:
            group["lr"] = 2e-4 * 0.5 * (1 + math.cos(math.pi * step / steps))
        optimizer.zero_grad()
        found = loss(network.heads(network.dense(batch.features, batch.indices, batch.size)), batch.targets)
        found.total.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 10.0)
        optimizer.step()
        if step % 20 == 19 or step + 1 == steps:
            print(f"step {step + 1} of {steps}  loss {float(found.total.detach()):.3f}", flush=True)
    return network.detector()


def _frames(sweeps: list[Sweep], device: torch.device, grid: VoxelGrid) -> list[LabelledFrame]:
    made = []
    for i, sweep in enumerate(sweeps):
        pair = voxelize_batch([torch.from_numpy(sweep.points).to(device)], grid, dtype=torch.float16)
        boxes = sweep.boxes[sweep.boxes.within(grid.point_range)]
        made.append(LabelledFrame(*pair, boxes, f"sweep-{i}"))
    return made


def quantised(
    detector: Detector, sweeps: list[Sweep], device: torch.device, grid: VoxelGrid
) -> EncoderFunction:
    """The detector's encoder in int8, as `quant.quantize` makes it from these sweeps."""
    frames = [(frame.features.float(), frame.indices) for frame in _frames(sweeps, device, grid)]
    few = (tensor[:8].cpu() for tensor in frames[0])
    encoder = copy.deepcopy(detector.encoder)
    graph = scn_fx.capture(encoder, encoder.arguments(*few), grid=grid).to(device)  # type: ignore[operator]
    quant.quantize(graph, frames)
    return lambda features, indices: graph(features.float(), indices)


def _score(
    detector: Detector,
    encoder: EncoderFunction | None,
    sweeps: list[Sweep],
    device: torch.device,
    grid: VoxelGrid,
) -> AveragePrecision:
    """AP with the detector's own encoder in float32, or with another."""
    own, head = (copy.deepcopy(part).to(device).eval() for part in detector.parts().values())
    return evaluate(encoder or encoder_function(own), head, _frames(sweeps, device, grid), grid=grid)  # type: ignore[arg-type]


def main(argv: list[str] | None = None) -> int:
    """0, or 1 after an error."""
    parser = argparse.ArgumentParser(prog="python -m examples.detector.real", description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--data", type=Path, help=f"folder of real frames [default: {DATA_VARIABLE}]")
    parser.add_argument("--steps", type=int, default=300, help="of fine-tuning; 0 evaluates alone")
    parser.add_argument(
        "--frames",
        type=int,
        default=32,
        help="sweeps of the first part that int8 is calibrated on; 0: no int8",
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--output", type=Path, help="write the fine-tuned detector there")
    parser.add_argument("--json", type=Path, help="write the figures there")
    given = parser.parse_args(argv)
    try:
        folder = given.data or os.environ.get(DATA_VARIABLE)
        if not folder:
            raise ArgumentError(f"Expected --data or {DATA_VARIABLE} to name the folder of real frames.")
        for path in filter(None, (given.output, given.json)):
            check_writable(path)
        if given.frames < 0:
            raise ArgumentError(f"--frames must not be negative, got {given.frames}.")
        sweeps = read_drive(Path(folder) / "frames" / "kitti_0005.npz")
        tuned, held_out = split(sweeps)
        detector, device = load_detector(given.checkpoint), torch.device(given.device)
        print(f"{len(tuned)} sweeps to fine-tune on, {len(held_out)} later ones to evaluate.")
        number = min(given.frames, len(tuned))
        chosen = [tuned[i] for i in np.linspace(0, len(tuned) - 1, number).astype(int)]
        report: dict[str, Any] = {"sweeps": len(held_out), "int8_sweeps": number}

        def score(title: str, key: str) -> AveragePrecision:
            for name, sweeps in (("", []), ("_int8", chosen)):
                if name and not sweeps:
                    continue
                encoder = quantised(detector, sweeps, device, CENTERPOINT_GRID) if sweeps else None
                found = _score(detector, encoder, held_out, device, CENTERPOINT_GRID)
                print(f"{title}, encoder in {'int8' if sweeps else 'float32'}:\n{found}")
                report[key + name] = found.to_dict()
            return found

        before = score("Before fine-tuning", "before")
        if given.steps:
            detector = fine_tune(detector, tuned, given.steps, device, CENTERPOINT_GRID)
            score(f"After {given.steps} steps", "after")
        for name in np.flatnonzero(before.labels == 0):
            print(f"The held-out part has no {CLASSES[name]}: it is not in the mean.")
        if given.output:
            save_detector(given.output, detector)
        if given.json:
            write_file(given.json, json.dumps(report, indent=2) + "\n")
    except ScnError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
