# SPDX-License-Identifier: Apache-2.0
"""Evaluate a detector on held-out scenes: ``python -m examples.detector.evaluate detector.npz``.

Under torchrun the processes share the scenes, and the first prints the AP over all of them.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
from pathlib import Path

from examples.detector.data import layouts
from examples.detector.processes import Team, team
from scn_fx.detection import (
    AveragePrecision,
    Detector,
    encoder_function,
    evaluate,
    load_detector,
)
from scn_fx.detection.scenes import HELD_OUT_SEED, labelled_frame
from scn_fx.errors import ScnError
from scn_fx.files.atomic import write_file
from scn_fx.lidar.grids import CENTERPOINT_GRID, VoxelGrid

__all__ = ["evaluate_detector", "main", "write_report"]


def evaluate_detector(
    detector: Detector, count: int, grid: VoxelGrid, mates: Team, *, workers: int = 0, thin: int = 1
) -> AveragePrecision:
    """AP of the float32 detector on the first `count` held-out scenes, with progress on standard error.

    All processes of a team call this and get the AP of all scenes; the first one's weights count.
    """
    device = mates.device
    encoder = copy.deepcopy(detector.encoder).to(device).eval()
    head = copy.deepcopy(detector.head).to(device).eval()
    for part in (encoder, head):
        mates.same_start(part)
    own = [[HELD_OUT_SEED + number] for number in range(mates.rank, count, mates.world)]
    began = time.perf_counter()
    shown = began

    def each(done: int) -> None:
        nonlocal shown
        now = time.perf_counter()
        if mates.leads and now - shown >= 5:
            left = (now - began) * (len(own) - done) / done
            print(f"evaluated {done} of {len(own)}, {left:.0f} s left", file=sys.stderr, flush=True)
            shown = now

    frames = (labelled_frame(scene, device, grid) for (scene,) in layouts(own, workers, thin))
    run = encoder_function(encoder)
    return evaluate(run, head, frames, grid=grid, each=each, together=mates.world > 1)


def write_report(path: Path, found: AveragePrecision, checkpoint: Path) -> None:
    """The figures as JSON."""
    text = json.dumps({"checkpoint": checkpoint.name, **found.to_dict()}, indent=2)
    write_file(path, text + "\n")


def main(argv: list[str] | None = None) -> int:
    """0, or 1 after an error."""
    parser = argparse.ArgumentParser(prog="python -m examples.detector.evaluate", description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--scenes", type=int, default=500)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--workers", type=int, default=0, help="processes that draw scenes")
    parser.add_argument("--json", type=Path, help="write the figures there")
    given = parser.parse_args(argv)
    try:
        detector = load_detector(given.checkpoint)
        with team(given.device) as mates:
            found = evaluate_detector(detector, given.scenes, CENTERPOINT_GRID, mates, workers=given.workers)
        if mates.leads:
            print(found)
            if given.json:
                write_report(given.json, found, given.checkpoint)
    except ScnError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
