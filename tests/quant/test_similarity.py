# SPDX-License-Identifier: Apache-2.0
"""One frame, repeated frames and consecutive sweeps give a warning; frames of different places do not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import quant
from scn_fx.errors import CalibrationWarning
from scn_fx.quant.similarity import FrameVariety
from scn_fx.zoo import demo_frame
from tests.oracle.frames import synthetic_frame
from tests.quant.graphs import frame, residual


def variety(*frames: torch.Tensor) -> FrameVariety:
    counted = FrameVariety()
    for indices in frames:
        counted.add(indices)
    return counted


def scene(seed: int) -> torch.Tensor:
    return torch.from_numpy(synthetic_frame(seed).indices)


def test_one_frame_alone() -> None:
    with pytest.warns(CalibrationWarning, match="one frame.*a few hundred key frames from different places"):
        quant.calibrate(residual(), [frame(0)])


@pytest.mark.parametrize("copies", [2, 3, 8])
def test_repeated_frames(copies: int) -> None:
    with pytest.warns(CalibrationWarning, match=f"Only 1 of {copies} frames differ"):
        quant.calibrate(residual(), [frame(0)] * copies)


def test_the_same_sites_with_other_features_are_alike() -> None:
    features, indices = frame(0)
    frames = [(features + 0.01 * torch.randn_like(features), indices) for _ in range(4)]
    with pytest.warns(CalibrationWarning, match="Only 1 of 4 frames differ"):
        quant.calibrate(residual(), frames)


def test_sweeps_of_a_slow_car_are_alike() -> None:
    sites, rng = scene(1), np.random.default_rng(0)
    moved = []
    for step in range(6):  # a few voxels each, and a tenth of the voxels lost to noise
        shifted = sites + torch.tensor([0, 0, step, 2 * step], dtype=torch.int32)
        moved.append(shifted[torch.from_numpy(rng.random(len(sites)) > 0.1)])
    assert variety(*moved).distinct <= 2 and "consecutive" in str(variety(*moved).finding())


def test_frames_of_different_places_are_not() -> None:
    counted = variety(*map(scene, range(8)))
    assert (counted.frames, counted.distinct, counted.finding()) == (8, 8, None)


def test_a_few_repetitions_among_many_places_are_no_matter() -> None:
    assert variety(*map(scene, (0, 1, 2, 2, 3, 4))).finding() is None
    assert variety(*map(scene, (0, 0, 1, 1))).finding() is not None


def test_small_crowded_grids_are_compared_voxel_by_voxel() -> None:
    counted = variety(*(frame(seed)[1] for seed in range(6)))
    assert counted.distinct == 6


def test_empty_frames_and_frames_beyond_the_first_one_s_extent() -> None:
    empty = torch.zeros(0, 4, dtype=torch.int32)
    far = scene(0) + torch.tensor([0, 0, 700, 700], dtype=torch.int32)
    assert variety(empty, scene(0), empty, far).distinct == 2


def test_samples_of_one_small_scene_are_alike_and_random_sites_are_not() -> None:
    samples = [demo_frame(seed, 1000, grid=(64, 64, 40))[1] for seed in range(4)]
    assert variety(*samples).distinct == 1
    made = [torch.from_numpy(synthetic_frame(seed, 1000, (40, 64, 64)).indices) for seed in range(4)]
    assert variety(*made).distinct == 4
