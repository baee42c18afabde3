# SPDX-License-Identifier: Apache-2.0
"""The real drive: its file, its split in time, and turned sweeps; on a made-up drive and the real one."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from examples.detector.model import DetectorInTraining
from examples.detector.real import Sweep, _frames, _turned, fine_tune, main, quantised, read_drive, split
from examples.detector.train import TINY_GRID
from scn_fx.detection import encoder_function
from scn_fx.errors import ArgumentError


def drive(folder: Path, frames: int = 10) -> Path:
    """A file of the drive's format: a car ahead and a tram beside it, in every sweep."""
    random = np.random.default_rng(0)
    points = [random.uniform((-500, -500, -300), (3000, 2000, 100), (60, 3)) for _ in range(frames)]
    box = [(8, 1, -0.5, 4, 2, 1.5, 0.2), (2, 4, 0, 9, 3, 3, 0)] * frames
    path = folder / "frames" / "kitti_0005.npz"
    path.parent.mkdir()
    np.savez(
        path,
        xyz_4mm=np.concatenate(points).astype(np.int16),
        reflectance_255=np.full(60 * frames, 51, np.uint8),
        frame_start=np.arange(frames + 1) * 60,
        box_frame=np.repeat(np.arange(frames), 2).astype(np.int16),
        box_class=np.tile([0, 6], frames).astype(np.uint8),
        box_xyzlwh_yaw=np.array(box, np.float32),
        box_points=np.tile([30, 40], frames).astype(np.int32),
    )
    return path


def inside(sweep: Sweep, row: int) -> int:
    """Points in a box, a little enlarged: labels have a rim."""
    boxes, apart = sweep.boxes, sweep.points[:, :3] - sweep.boxes.centre[row]
    cos, sin = np.cos(boxes.yaw[row]), np.sin(boxes.yaw[row])
    along, across = cos * apart[:, 0] + sin * apart[:, 1], cos * apart[:, 1] - sin * apart[:, 0]
    half = boxes.size[row] / 2 + 1e-3
    return int(
        ((np.abs(along) < half[0]) & (np.abs(across) < half[1]) & (np.abs(apart[:, 2]) < half[2])).sum()
    )


def drives(folder: Path) -> list[Path]:
    """The made-up drive, and the real one where SCN_FX_DATA has it."""
    real = Path(os.environ.get("SCN_FX_DATA", "")) / "frames" / "kitti_0005.npz"
    return [drive(folder), *([real] if real.is_file() else [])]


def test_a_drive_is_read_split_and_turned(tmp_path: Path) -> None:
    for path in drives(tmp_path):
        sweeps = read_drive(path)
        first, last = split(sweeps)
        assert len(first) == int(0.6 * len(sweeps)) and first[0] is sweeps[0] and last[-1] is sweeps[-1]
        assert len(sweeps) * 0.3 < len(last) <= len(sweeps) - len(first)
        sweep = sweeps[0]
        assert sweep.points.shape[1] == 5 and sweep.points.dtype == np.float32
        assert (sweep.boxes.label >= 0).all() and (sweep.points[:, 4] == 0).all()
        turned = _turned(sweep, 0.7, True)
        for row in range(len(sweep.boxes)):
            assert inside(turned, row) == inside(sweep, row)
        if len(sweeps) > 10:  # the real one counts the points in its boxes
            counted = [inside(sweep, row) for row in range(len(sweep.boxes))]
            assert np.allclose(counted, sweep.boxes.points, atol=5)


def test_fine_tuning_changes_weights_and_keeps_statistics(tmp_path: Path) -> None:
    torch.manual_seed(0)
    detector = DetectorInTraining.fresh(TINY_GRID, (4, 8, 8, 8), 8).detector()
    tuned = fine_tune(detector, read_drive(drive(tmp_path))[:2], 1, torch.device("cpu"), TINY_GRID)
    before, after = detector.encoder.state_dict(), tuned.encoder.state_dict()
    assert not torch.equal(before["conv4.3.conv1.weight"], after["conv4.3.conv1.weight"])
    assert torch.equal(before["conv_input.1.running_mean"], after["conv_input.1.running_mean"])


def test_int8_is_made_of_the_first_part(tmp_path: Path) -> None:
    torch.manual_seed(0)
    detector = DetectorInTraining.fresh(TINY_GRID, (4, 8, 8, 8), 8).detector()
    sweeps, device = read_drive(drive(tmp_path)), torch.device("cpu")
    int8 = quantised(detector, sweeps[:2], device, TINY_GRID)
    (frame,) = _frames(sweeps[9:], device, TINY_GRID)
    dense = [run(frame.features, frame.indices) for run in (encoder_function(detector.encoder), int8)]
    error = (dense[1].float() - dense[0]).square().sum() / dense[0].square().sum()
    assert 0 < float(error) < 0.05  # quantised, and near


def test_what_is_missing_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SCN_FX_DATA", raising=False)
    assert main(["none.npz"]) == 1 and "SCN_FX_DATA to name the folder" in capsys.readouterr().err
    np.savez(tmp_path / "a.npz", xyz_4mm=np.zeros((3, 3)))
    with pytest.raises(ArgumentError, match="has no array 'reflectance_255'"):
        read_drive(tmp_path / "a.npz")
