# SPDX-License-Identifier: Apache-2.0
"""The detector's training in tiny form: it learns, resumes to the bit, runs in two processes, says what is
wrong."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from examples.detector.data import layouts, make_batch, seeds
from examples.detector.model import DetectorInTraining
from examples.detector.state import Progress, load_state, save_state
from examples.detector.targets import loss
from examples.detector.train import TINY_GRID, Settings, main, train
from scn_fx.detection import load_detector
from scn_fx.detection.evaluation import encoder_function
from scn_fx.errors import ArgumentError

ROOT = Path(__file__).parents[2]


def settings(folder: Path, **changes: object) -> Settings:
    made = {"steps": 3, "batch_size": 1, "device": "cpu", "tiny": True, "evaluate": 0, **changes}
    return Settings(folder / "a.npz", folder / "state.npz", **made)  # type: ignore[arg-type]


def test_a_resumed_training_is_the_uninterrupted_one(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "b").mkdir()
    assert train(settings(tmp_path, evaluate=1))
    assert "mean AP" in capsys.readouterr().out
    report = json.loads((tmp_path / "a.json").read_text())
    assert report["frames"] == 1 and report["checkpoint"] == "a.npz"
    assert not train(settings(tmp_path / "b", limit=2)) and not (tmp_path / "b" / "a.npz").exists()
    assert "Stopped after step 2" in capsys.readouterr().out
    assert train(settings(tmp_path / "b"))
    assert "Going on from step 2" in capsys.readouterr().out
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b" / "a.npz").read_bytes()
    with pytest.raises(ArgumentError, match=r"batch_size was 1, is 2.*Name another --state"):
        train(settings(tmp_path, batch_size=2))
    with pytest.raises(ArgumentError, match="steps was 3, is 4"):
        train(settings(tmp_path, steps=4))


def test_the_network_learns_a_scene_and_is_stored_for_raw_features(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = DetectorInTraining.fresh(TINY_GRID, (4, 8, 8, 8), 8).train()
    (scene,) = itertools.islice(layouts([[3]], 0, 16), 1)
    batch = make_batch(scene, TINY_GRID, torch.device("cpu"))
    optimizer = torch.optim.AdamW(network.parameters(), 2e-2)
    values = []
    for _ in range(8):
        optimizer.zero_grad()
        dense = network.dense(batch.features, batch.indices, 1)
        found = loss(network.heads(dense), batch.targets).total
        found.backward()
        assert all(p.grad is not None for p in network.parameters())
        optimizer.step()
        values.append(float(found))
    assert values[-1] < 0.6 * values[0], values
    network.eval()
    stored = network.detector()
    with torch.no_grad():
        scaled = network.dense(batch.features, batch.indices, 1)
        raw = encoder_function(stored.encoder)(batch.features, batch.indices)
    assert torch.allclose(scaled, raw, rtol=1e-3, atol=1e-4)


def test_every_process_has_seeds_of_its_own() -> None:
    taken = [
        number for rank in range(3) for batch in itertools.islice(seeds(0, 4, rank, 3), 5) for number in batch
    ]
    assert sorted(taken) == list(range(60))
    assert next(seeds(7, 4, 1, 3)) == list(itertools.islice(seeds(0, 4, 1, 3), 8))[7]


def test_two_processes_train_one_network(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    options = ["--device", "cpu", "--tiny", "--steps", "2", "--batch-size", "1", "--evaluate", "0"]
    output = ["--output", str(tmp_path / "a.npz"), "--workers", "0"]
    done = subprocess.run(
        [*command, "-m", "examples.detector.train", *options, *output],
        capture_output=True, text=True, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("after 2 steps of 2 scenes") == 1, "one process speaks"
    load_detector(tmp_path / "a.npz")


def test_a_state_of_another_kind_is_refused(tmp_path: Path) -> None:
    network = DetectorInTraining.fresh(TINY_GRID, (4, 8, 8, 8), 8)
    optimizer = torch.optim.AdamW(network.parameters())
    path = tmp_path / "state.npz"
    np.savez(path, about=np.zeros(3, np.uint8))
    with pytest.raises(ArgumentError, match="is no state of a training"):
        load_state(path, network, optimizer, {})
    save_state(path, network, optimizer, Progress(2, 3.0), {"a": 1})
    assert load_state(path, network, optimizer, {"a": 1}) == Progress(2, 3.0)
    wider = DetectorInTraining.fresh(TINY_GRID, (4, 8, 8, 16), 8)
    with pytest.raises(ArgumentError, match=r"expected model\.encoder"):
        load_state(path, wider, torch.optim.AdamW(wider.parameters()), {"a": 1})


def test_the_command_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    output = ["--output", str(tmp_path / "a.npz")]
    for options, text in (
        (["--device", "cpu"], "either --minutes or --steps"),
        (["--steps", "1", "--minutes", "1"], "either --minutes or --steps"),
        (["--minutes", "-1"], "--minutes must be > 0, got -1"),
        (["--steps", "1", "--evaluate", "-1"], "must not be negative"),
        (["--steps", "1", "--output", str(tmp_path / "no" / "a.npz")], "does not exist"),
    ):
        assert main([*output, *options]) == 1
        assert text in capsys.readouterr().err
    if not torch.cuda.is_available():
        assert main([*output, "--steps", "1"]) == 1
        assert "needs a GPU of its own, and torch sees 0" in capsys.readouterr().err
