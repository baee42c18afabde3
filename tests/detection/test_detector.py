# SPDX-License-Identifier: Apache-2.0
"""Targets and decoding undo each other; detections repeat to the bit; checkpoints are what was trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from examples.detector.targets import Targets, loss, targets
from scn_fx.detection import (
    BevHead,
    Detector,
    HeadOutput,
    average_precision,
    decode,
    detect,
    encoder_function,
    evaluate,
    held_out_frames,
    load_detector,
    save_detector,
    trained_detector,
)
from scn_fx.detection import checkpoint as checkpoint_module
from scn_fx.detection.scenes import HELD_OUT_SEED, labelled_frame
from scn_fx.errors import ArgumentError
from scn_fx.lidar.boxes import CLASSES, Boxes
from scn_fx.lidar.grids import CENTERPOINT_GRID, VoxelGrid
from scn_fx.lidar.raycast import SceneArrays
from scn_fx.lidar.traffic import traffic_scene

SMALL = VoxelGrid((-19.2, -19.2, -5.0, 19.2, 19.2, 3.0), (0.6, 0.6, 0.2))


def wanted(boxes: Boxes, grid: VoxelGrid) -> Targets:
    tensors = {
        name: torch.from_numpy(getattr(boxes, name))
        for name in ("centre", "size", "yaw", "velocity", "label")
    }
    frame = torch.zeros(len(boxes), dtype=torch.int64)
    return targets(**tensors, frame=frame, counts=frame == 0, frames=1, grid=grid)


def perfect(made: Targets) -> HeadOutput:
    """What a head would say that knows the targets."""
    box = torch.zeros(made.heat.shape[0], 10, *made.heat.shape[2:])
    frame, row, column = made.place[made.valid].unbind(1)
    box[frame, :, row, column] = made.box[made.valid]
    return HeadOutput(torch.logit(made.heat, eps=1e-4), box)


def test_decoding_undoes_the_targets() -> None:
    boxes = traffic_scene(3).boxes
    boxes = boxes[boxes.within(CENTERPOINT_GRID.point_range)]
    made = wanted(boxes, CENTERPOINT_GRID)
    assert made.heat.shape == (1, len(CLASSES), 180, 180)
    (found,) = decode(perfect(made), CENTERPOINT_GRID, min_score=0.9)
    gaps = np.abs(found.centre[:, None] - boxes.centre[None]).max(2)
    gaps[found.label[:, None] != boxes.label[None]] = np.inf
    row, nearest = gaps.min(0), gaps.argmin(0)
    # Two objects of a class in one cell or beside each other leave one peak; all others come back.
    clear = row < 1e-3
    assert clear.mean() > 0.9 and len(boxes) > 30
    got, was = found[nearest[clear]], boxes[clear]
    for name, limit in (("centre", 1e-4), ("size", 1e-4), ("velocity", 1e-4)):
        assert np.abs(getattr(got, name) - getattr(was, name)).max() < limit, name
    turn = np.angle(np.exp(1j * (got.yaw - was.yaw)))
    assert np.abs(turn).max() < 1e-4


def test_targets_leave_out_what_does_not_count() -> None:
    boxes = Boxes.of([(-18, -18, 0), (25, 0, 0)], np.ones((2, 3)), [0, 0], [0, 3])
    made = wanted(boxes, SMALL)
    assert made.valid.tolist() == [True, False], "the second is outside"
    assert made.heat[0, 0].max() == 1 and made.heat[0, 3].max() == 0
    assert (made.heat[0, 0] == 1).sum() == 1 and (made.heat[0, 0] > 0).sum() == 9, "cut at the edge"
    assert made.place[0].tolist() == [0, 0, 0]


def test_the_loss_is_least_where_the_head_is_right() -> None:
    size = [(4.5, 1.8, 1.5), (0.6, 0.6, 1.7), (9, 2.5, 3)]
    boxes = Boxes.of([(-8, 3, 0), (9, -4, -1), (2, 13, 0)], size, [0.3, -2, 3], [0, 3, 2], np.ones((3, 2)))
    made = wanted(boxes, SMALL)
    right = perfect(made)
    best = loss(right, made)
    assert float(best.box) == pytest.approx(0.0, abs=1e-5)
    for output in (
        HeadOutput(right.heat.roll(1, 2), right.box),
        HeadOutput(-right.heat, right.box),
        HeadOutput(right.heat, right.box + 0.1),
    ):
        assert float(loss(output, made).total) > float(best.total) + 0.1
    empty = loss(right, wanted(boxes[:0], SMALL))
    assert bool(torch.isfinite(empty.total))


def test_peaks_are_taken_in_one_order() -> None:
    heat = torch.full((1, 5, 8, 8), -9.0)
    heat[0, 2, 1, 1] = heat[0, 0, 5, 5] = heat[0, 0, 2, 6] = 1.0
    heat[0, 0, 5, 6] = 0.5  # beside a higher one
    (found,) = decode(HeadOutput(heat, torch.zeros(1, 10, 8, 8)), SMALL)
    assert found.label.tolist() == [0, 0, 2]
    cell = 38.4 / 8
    places = [(6 * cell, 2 * cell), (5 * cell, 5 * cell), (cell, cell)]
    assert np.allclose(found.centre[:, :2] + 19.2, places, atol=1e-5)
    assert len(decode(HeadOutput(heat, torch.zeros(1, 10, 8, 8)), SMALL, most=1)[0]) == 1


def tiny() -> Detector:
    torch.manual_seed(1)
    made = Detector.fresh(5, (4, 8, 8, 8), grid=(64, 64, 40), head_width=8)
    for part in made.parts().values():
        part.eval()
    return made


def test_a_checkpoint_is_the_rounded_network(tmp_path: Path) -> None:
    made = tiny()
    save_detector(tmp_path / "a.npz", made)
    save_detector(tmp_path / "b.npz", made)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    read = load_detector(tmp_path / "a.npz")
    for name, part in read.parts().items():
        state = made.parts()[name].state_dict()
        for key, tensor in part.state_dict().items():
            assert not part.training
            if not key.endswith("num_batches_tracked"):
                assert torch.equal(tensor, state[key].half().float()), key


def test_a_wrong_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    save_detector(path, tiny())
    with np.load(path) as archive:
        arrays = dict(archive)

    def refused(match: str, **changes: Any) -> None:
        kept = {k: v for k, v in {**arrays, **changes}.items() if v is not None}
        np.savez(tmp_path / "bad.npz", **kept)
        with pytest.raises(ArgumentError, match=match):
            load_detector(tmp_path / "bad.npz")

    refused(r"expected head.heat.3.bias as float16 \[5\], got nothing", **{"head.heat.3.bias": None})
    refused("got float32", **{"head.heat.3.bias": np.zeros(5, np.float32)})
    refused("1 arrays belong to no layer of the detector, first 'more'", more=np.zeros(1))
    refused("expected 4 whole number", channels=np.array([4, 8]))
    refused("at most 4096", head_width=np.array(10**6))
    diverged = tiny()
    diverged.head.heat[-1].bias.data[0] = 1e6
    with pytest.raises(ArgumentError, match=r"head.heat.3.bias has values that float16 cannot hold"):
        save_detector(path, diverged)


def test_a_copy_without_the_trained_detector_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(checkpoint_module, "SHIPPED", tmp_path / "none.npz")
    with pytest.raises(ArgumentError, match=r"examples/detector/train.py"):
        trained_detector()


def test_equal_maps_give_equal_boxes_with_any_encoder() -> None:
    made = tiny()
    frame = labelled_frame(SceneArrays.traffic(HELD_OUT_SEED).thinned(16), grid=SMALL)
    encoder = encoder_function(made.encoder)
    dense = encoder(frame.features, frame.indices)
    assert dense.shape == (1, 16, 8, 8)
    first = detect(encoder, made.head, frame.features, frame.indices, grid=SMALL)
    again = detect(lambda f, i: dense.numpy(), made.head, None, None, grid=SMALL)
    for name, values in vars(first).items():
        assert np.array_equal(values, vars(again)[name]), name
    done: list[int] = []
    result = evaluate(encoder, made.head, [frame], grid=SMALL, each=done.append)
    assert done == [1] and np.array_equal(
        result.table, average_precision([first], [frame.boxes]).table, equal_nan=True
    )


def test_what_detect_refuses() -> None:
    made = tiny()
    with pytest.raises(ArgumentError, match=r"takes a dense map \[1, 16, H, W\].* gave \[1, 8, 4, 4\]"):
        detect(lambda f, i: torch.zeros(1, 8, 4, 4), made.head, None, None)
    with pytest.raises(ArgumentError, match="training mode"):
        detect(lambda f, i: torch.zeros(1, 16, 8, 8), made.head.train(), None, None)


def test_held_out_frames_are_not_for_training() -> None:
    for count, first in ((0, HELD_OUT_SEED), (1, 5)):
        with pytest.raises(ArgumentError, match="belong to training"):
            next(held_out_frames(count, first=first))


def test_the_head_of_the_full_size_fits() -> None:
    head = BevHead()
    assert sum(p.numel() for p in head.parameters()) < 1_200_000
