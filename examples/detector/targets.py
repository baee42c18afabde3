# SPDX-License-Identifier: Apache-2.0
"""What the head should say: heatmaps of centres, box values at them, and the loss between both."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from scn_fx.detection.decode import VELOCITY_UNIT
from scn_fx.detection.head import HeadOutput
from scn_fx.lidar.boxes import CLASSES
from scn_fx.lidar.grids import VoxelGrid

__all__ = ["STRIDE", "Loss", "Targets", "loss", "targets"]

STRIDE = 8
"""Voxels of a cell of the dense map, along x and y."""

_SMALLEST, _LARGEST = 2, 5  # radius of a centre's bell in cells
_BOX_WEIGHT = 0.25  # as CenterPoint weighs boxes beside the heatmap
_VELOCITY_WEIGHT = 0.2


@dataclass(frozen=True)
class Targets:
    """N labelled objects of a batch of B frames, of which `valid` ones count."""

    heat: torch.Tensor
    """float32 [B, classes, H, W]: 1 at centres, a bell around each."""
    place: torch.Tensor
    """int64 [N, 3]: frame, row and column of each centre."""
    box: torch.Tensor
    """float32 [N, 10]: see `BOX_CHANNELS`."""
    valid: torch.Tensor
    """bool [N]."""


@dataclass(frozen=True)
class Loss:
    """The parts of the loss, scalars."""

    total: torch.Tensor
    heat: torch.Tensor
    box: torch.Tensor


@torch.no_grad()
def targets(
    *,
    frame: torch.Tensor,
    centre: torch.Tensor,
    size: torch.Tensor,
    yaw: torch.Tensor,
    velocity: torch.Tensor,
    label: torch.Tensor,
    counts: torch.Tensor,
    frames: int,
    grid: VoxelGrid,
) -> Targets:
    """Targets of N objects: tensors [N, …] on one device; only those where `counts` and inside `grid`.

    No value is looked at by the host, so nothing waits for the device.
    """
    device = centre.device
    columns, rows = grid.box_shape[2] // STRIDE, grid.box_shape[1] // STRIDE
    low = torch.tensor(grid.point_range[:2], device=device)
    edge = torch.tensor(grid.voxel_size[:2], device=device) * STRIDE
    position = (centre[:, :2] - low) / edge
    cell = position.floor()
    limit = torch.tensor([columns, rows], device=device)
    valid = counts & ((cell >= 0) & (cell < limit)).all(1)
    cell = torch.minimum(cell.clamp(min=0), limit - 1).long()
    angle = yaw[:, None]
    box = torch.cat(
        [position - cell, centre[:, 2:], size.log(), angle.sin(), angle.cos(), velocity / VELOCITY_UNIT], 1
    )

    radius = (0.5 * (size[:, 0] * size[:, 1]).sqrt() / edge[0]).floor().clamp(_SMALLEST, _LARGEST)
    sigma = (2 * radius + 1) / 6
    around = torch.arange(-_LARGEST, _LARGEST + 1, device=device)
    dy, dx = (part.flatten() for part in torch.meshgrid(around, around, indexing="ij"))
    bell = torch.exp(-(dx * dx + dy * dy) / (2 * sigma * sigma)[:, None])
    x, y = cell[:, :1] + dx, cell[:, 1:] + dy
    near = (dx.abs() <= radius[:, None]) & (dy.abs() <= radius[:, None])
    inside = near & (x >= 0) & (x < columns) & (y >= 0) & (y < rows) & valid[:, None]
    plane = (frame * len(CLASSES) + label)[:, None]
    at = (plane * rows + y.clamp(0, rows - 1)) * columns + x.clamp(0, columns - 1)
    heat = torch.zeros(frames * len(CLASSES) * rows * columns, device=device)
    heat.scatter_reduce_(0, at.flatten(), torch.where(inside, bell, 0.0).flatten(), "amax")
    shape = (frames, len(CLASSES), rows, columns)
    return Targets(heat.view(shape), torch.stack([frame, cell[:, 1], cell[:, 0]], 1), box, valid)


def loss(output: HeadOutput, wanted: Targets) -> Loss:
    """Gaussian focal loss of the heatmap (Law and Deng, "CornerNet", ECCV 2018) and L1 of the boxes.

    Both are per labelled object.
    """
    logits, box = output.heat.float(), output.box.float()
    number = wanted.valid.sum().clamp(min=1)
    peak = wanted.heat == 1
    sure = torch.sigmoid(logits)
    found = torch.where(peak, (1 - sure) ** 2 * F.logsigmoid(logits), 0.0)
    missed = torch.where(peak, 0.0, (1 - wanted.heat) ** 4 * sure**2 * F.logsigmoid(-logits))
    heat = -(found.sum() + missed.sum()) / number

    frame, row, column = wanted.place.unbind(1)
    weight = torch.ones(box.shape[1], device=box.device)
    weight[-2:] = _VELOCITY_WEIGHT
    away = (box[frame, :, row, column] - wanted.box).abs() * weight
    boxes = torch.where(wanted.valid[:, None], away, 0.0).sum() / number
    return Loss(heat + _BOX_WEIGHT * boxes, heat, boxes)
