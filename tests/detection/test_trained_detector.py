# SPDX-License-Identifier: Apache-2.0
"""The detector that ships: it finds objects, INT8 keeps them, and engine and graph agree to the bit."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import fx

import quant
import scn_fx
from scn_fx.detection import Detector, average_precision, detect, held_out_frames, trained_detector
from scn_fx.detection.checkpoint import SHIPPED
from scn_fx.detection.scenes import HELD_OUT_SEED, LabelledFrame
from scn_fx.lidar import CENTERPOINT_GRID
from scn_fx.lidar.boxes import Boxes


@pytest.fixture(scope="module")
def detector() -> Detector:
    made = trained_detector()
    assert made is not None
    return made


@pytest.fixture(scope="module")
def scenes() -> list[LabelledFrame]:
    return list(held_out_frames(2))


@pytest.fixture(scope="module")
def graphs(detector: Detector, scenes: list[LabelledFrame]) -> tuple[fx.GraphModule, fx.GraphModule]:
    """The captured encoder in float32, and calibrated."""
    sites = scenes[0].features[:8].float(), scenes[0].indices[:8]
    made = [
        scn_fx.capture(detector.encoder, detector.encoder.arguments(*sites), grid=CENTERPOINT_GRID)
        for _ in range(2)
    ]
    frames = [(f.features.float(), f.indices) for f in held_out_frames(2, first=2 * HELD_OUT_SEED)]
    quant.calibrate(made[1], frames, progress=False)
    return made[0], made[1]


def _same(a: Boxes, b: Boxes) -> bool:
    return all(np.array_equal(getattr(a, field.name), getattr(b, field.name)) for field in fields(Boxes))


def test_it_is_small() -> None:
    assert SHIPPED.stat().st_size <= 8_000_000


def test_boxes_of_int8_are_those_of_float(
    detector: Detector, scenes: list[LabelledFrame], graphs: tuple[fx.GraphModule, fx.GraphModule]
) -> None:
    points = []
    for graph in graphs:

        def run(features: Any, indices: Any, graph: fx.GraphModule = graph) -> torch.Tensor:
            with torch.no_grad():
                return graph(features.float(), indices)

        found = [detect(run, detector.head, f.features, f.indices) for f in scenes]
        points.append(100 * average_precision(found, [f.boxes for f in scenes]).to_dict()["mean_ap"])
    exact, int8 = points
    assert exact > 70
    assert abs(exact - int8) < 3


def test_engine_and_graph_give_the_same_boxes(
    detector: Detector,
    scenes: list[LabelledFrame],
    graphs: tuple[fx.GraphModule, fx.GraphModule],
    tmp_path: Path,
) -> None:
    graph, frame = graphs[1], scenes[0]
    view, options = scn_fx.onnx_view(graph), scn_fx.export_options(graph)
    torch.onnx.export(view, (frame.features[:2].float(),), tmp_path / "d.onnx", dynamo=True, **options)
    engine = scn_fx.Engine(tmp_path / "d.onnx")
    with torch.no_grad():
        own = detect(lambda f, i: graph(f.float(), i), detector.head, frame.features, frame.indices)
    other = detect(engine, detector.head, frame.features, frame.indices)
    assert len(own) > 10
    assert _same(own, other)
