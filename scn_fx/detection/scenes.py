# SPDX-License-Identifier: Apache-2.0
"""The fixed scenes that detectors are compared on: made by seed, never seen in training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from scn_fx.errors import ArgumentError
from scn_fx.lidar.boxes import Boxes
from scn_fx.lidar.grids import CENTERPOINT_GRID, VoxelGrid
from scn_fx.lidar.raycast import SceneArrays, measure
from scn_fx.lidar.torch_voxels import voxelize_batch

__all__ = ["HELD_OUT_SEED", "LabelledFrame", "held_out_frames", "labelled_frame"]

HELD_OUT_SEED = 1_000_000_000
"""Seeds from here on are for evaluation, from twice as much on for calibration; training stays below."""


@dataclass(frozen=True, eq=False)
class LabelledFrame:
    """One voxelised frame of batch size 1 and its labelled boxes."""

    features: torch.Tensor
    """float16 [N, 5]: what a runtime is given."""
    indices: torch.Tensor
    """int32 [N, 4]: (batch, z, y, x)."""
    boxes: Boxes
    name: str


def labelled_frame(
    scene: SceneArrays, device: torch.device | str = "cpu", grid: VoxelGrid = CENTERPOINT_GRID
) -> LabelledFrame:
    """The frame that is measured in `scene` on `device`, with the labels inside the grid."""
    made = measure(scene, device)
    features, indices = voxelize_batch([made.points], grid, dtype=torch.float16)
    boxes = made.boxes()
    return LabelledFrame(features, indices, boxes[boxes.within(grid.point_range)], f"scene-{scene.seed}")


def held_out_frames(
    count: int,
    *,
    first: int = HELD_OUT_SEED,
    device: torch.device | str = "cpu",
    grid: VoxelGrid = CENTERPOINT_GRID,
) -> Iterator[LabelledFrame]:
    """`count` frames of the seeds from `first` on, made one after the other on `device`.

    Raises ArgumentError for a count below 1 and for seeds that training may have seen.
    """
    if count < 1 or first < HELD_OUT_SEED:
        raise ArgumentError(
            f"Expected at least 1 held-out frame of seeds from {HELD_OUT_SEED}, got {count} from {first}. "
            "Seeds below belong to training."
        )
    for seed in range(first, first + count):
        yield labelled_frame(SceneArrays.traffic(seed), device, grid)
