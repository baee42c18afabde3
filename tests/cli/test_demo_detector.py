# SPDX-License-Identifier: Apache-2.0
"""The demo's detector: AP of both precisions, boxes in the picture, and the demo without it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from scn_fx.cli import demo_detector
from scn_fx.cli.picture import BevMaps, save_picture
from scn_fx.detection import BevHead, LabelledFrame
from scn_fx.lidar import VoxelGrid
from scn_fx.lidar.boxes import Boxes
from tests.cli.test_demo import report, run_with

GRID = VoxelGrid((-19.2, -19.2, -5.0, 19.2, 19.2, 3.0), (0.6, 0.6, 0.2))


def found() -> demo_detector.Detections:
    torch.manual_seed(0)
    head = BevHead(4, 8).eval()
    head.heat[-1].bias.data.zero_()
    box = Boxes.of([(3, 4, 0), (9, 4, 0)], np.ones((2, 3)), [0, 1], [0, 1], points=[9, 1])
    frames = [LabelledFrame(torch.zeros(1, 5), torch.zeros(1, 4, dtype=torch.int32), box, "a")] * 2
    dense = torch.randn(1, 4, 8, 8)
    return demo_detector.find(head, frames, lambda f, i: dense, lambda f, i: dense.numpy(), GRID)


def test_equal_maps_have_equal_boxes_and_ap() -> None:
    made = found()
    assert made.frames == 2 and made.ap_float == made.ap_int8
    assert len(made.labels) == 1, "an object of one return does not count"
    assert np.array_equal(made.reference.centre, made.result.centre) and len(made.result)
    plain = made.to_dict()
    assert plain["boxes"] == {"labels": 1, "float": len(made.reference), "int8": len(made.result)}


def test_the_picture_has_boxes(tmp_path: Path) -> None:
    maps = np.abs(np.random.default_rng(0).normal(size=(1, 4, 8, 8))).astype(np.float32)
    plain = BevMaps(maps, maps, "title", GRID.point_range)
    save_picture(tmp_path / "plain.png", plain)
    save_picture(tmp_path / "boxes.png", replace(plain, detections=found()))
    images = [(tmp_path / name).read_bytes() for name in ("plain.png", "boxes.png")]
    assert all(image.startswith(b"\x89PNG") for image in images) and images[0] != images[1]


def test_the_report_tells_both_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    made: Any = replace(found(), ap_float=0.7012, ap_int8=0.6987, frames=8)
    text = run_with(monkeypatch, report(detections=made))
    assert "mean AP 70.12 in float32, 69.87 in INT8 on 8 held-out scenes" in text
    assert report(detections=made).to_dict()["detections"]["ap_int8"] == 0.6987
    assert "detector" not in run_with(monkeypatch, report())


def test_without_the_trained_weights_there_is_no_detector(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(demo_detector, "SHIPPED", tmp_path / "none.npz")
    assert demo_detector.shipped() is None
