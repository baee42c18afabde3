# SPDX-License-Identifier: Apache-2.0
"""Two processes evaluate together: the AP of one, bit for bit, and a clear error where one of them fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

# Boxes of every frame are its labels moved by some metres, with scores of which many are equal.
SCRIPT = """
import json, os, sys
import numpy as np, torch
import scn_fx.detection.evaluation as evaluation
from examples.detector.evaluate import evaluate_detector
from examples.detector.processes import team
from scn_fx.detection import Detector, LabelledFrame
from scn_fx.errors import ScnError
from scn_fx.lidar import VoxelGrid
from scn_fx.lidar.boxes import Boxes

def drawn(number):
    random = np.random.default_rng(number)
    centre, label = random.uniform(-40, 40, (6, 3)), random.integers(0, 5, 6)
    points = np.full(6, 9)
    labels = Boxes.of(centre, np.ones((6, 3)), np.zeros(6), label, points=points)
    moved = centre + random.normal(size=(6, 3))
    scores = random.integers(1, 4, 6) / 4
    return labels, Boxes.of(moved, np.ones((6, 3)), np.zeros(6), label, points=points, score=scores)

def found(encoder, head, features, indices, grid):
    return drawn(features)[1]

grid = VoxelGrid((-19.2, -19.2, -5.0, 19.2, 19.2, 3.0), (0.6, 0.6, 0.2))
torch.manual_seed(int(os.environ.get("RANK", "0")))  # the first process's weights count
made = Detector.fresh(grid=(64, 64, 40), channels=(4, 8, 8, 8), head_width=8)
with team("cpu") as mates:
    told = {"labels": str(evaluate_detector(made, 3, grid, mates, thin=16).labels.tolist())}
    evaluation.detect = found
    frames = [LabelledFrame(n, None, drawn(n)[0], "") for n in range(mates.rank, 31, mates.world)]
    score = evaluation.evaluate(None, None, frames, together=mates.world > 1)
    told["ap"] = f"{score.frames} {score.table.tolist()}"
    def broken():
        yield frames[0]
        if mates.rank == mates.world - 1:
            raise ScnError("The disk is gone.")
    try:
        evaluation.evaluate(None, None, broken(), together=True)
    except ScnError as error:
        told["error"] = str(error)
    # A file of its own: lines that two processes print into one pipe may cut each other.
    with open(f"{sys.argv[1]}-{mates.rank}.json", "w") as file:
        json.dump(told, file)
"""


def run(told: Path, *launcher: str) -> list[dict[str, str]]:
    """What each process of one run wrote, in the order of their ranks."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *launcher, str(told)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(path.read_text()) for path in sorted(told.parent.glob(f"{told.name}-*.json"))]


def test_two_processes_find_what_one_finds(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    (alone,) = run(tmp_path / "alone", str(script))
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    first, second = run(tmp_path / "both", *launcher, str(script))
    assert alone["ap"].startswith("31 [[0.") and "nan" not in alone["ap"]
    for what in ("labels", "ap"):
        assert alone[what] == first[what] == second[what]
    assert alone["error"] == second["error"] == "The disk is gone."
    assert (
        "The evaluation stops, because 1 of 2 processes failed: rank 1: ScnError: The disk is gone."
        in first["error"]
    )
