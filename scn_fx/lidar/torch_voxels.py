# SPDX-License-Identifier: Apache-2.0
"""Voxelisation of several frames at once on a torch device, with the means of `scn_fx.lidar.voxelize`.

Needs torch, and is therefore not imported with the package.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from scn_fx.errors import LidarError
from scn_fx.lidar.grids import VoxelGrid

__all__ = ["voxelize_batch"]

_FINE = 2.0**24
"""Steps of a metre in which sums are kept: whole numbers add up to the same in any order."""

_LARGEST = 2.0**20


@torch.no_grad()
def voxelize_batch(
    frames: Sequence[torch.Tensor], grid: VoxelGrid, *, dtype: torch.dtype = torch.float32
) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean of the points in each occupied voxel, for a batch of frames on one device.

    `frames` are float32 [N, C >= 3] each, x, y, z in metres first; all C are equal. Returns (features `dtype`
    [M, C], indices int32 [M, 4] of (batch, z, y, x), ascending). The result is the same in every run and on
    every device: voxels as `scn_fx.lidar.voxelize` gives them, means within 2**-25 of it before rounding.
    Raises `LidarError` for no frames, other shapes or dtypes, values that are not finite or beyond 2**20, and
    grids with `max_points` or float64 arithmetic, which are for `voxelize`.
    """
    points, batch = _joined(frames, grid)
    device = points.device
    key = batch
    inside = torch.ones(len(points), dtype=torch.bool, device=device)
    for axis, size in zip((2, 1, 0), grid.box_shape, strict=True):
        # Tensors, not numbers: CUDA divides by a number by multiplying with its reciprocal, and rounds twice.
        low = torch.tensor(np.float32(grid.point_range[axis]), device=device)
        edge = torch.tensor(np.float32(grid.voxel_size[axis]), device=device)
        cell = ((points[:, axis] - low) / edge).floor()
        inside &= (cell >= 0) & (cell < size)
        key = key * size + cell.clamp(0, size - 1).long()
    voxels, at = torch.unique(key[inside], return_inverse=True)
    sums = torch.zeros((len(voxels), points.shape[1]), dtype=torch.int64, device=device)
    sums.index_add_(0, at, (points[inside].double() * _FINE).round().long())
    counts = torch.zeros(len(voxels), dtype=torch.int64, device=device)
    counts.index_add_(0, at, torch.ones_like(at))
    means = (sums.double() / (counts[:, None].double() * _FINE)).to(dtype)

    columns = []
    rest = voxels
    for size in reversed(grid.box_shape):
        columns.append(rest % size)
        rest = torch.div(rest, size, rounding_mode="floor")
    return means, torch.stack([rest, *reversed(columns)], 1).int()


def _joined(frames: Sequence[torch.Tensor], grid: VoxelGrid) -> tuple[torch.Tensor, torch.Tensor]:
    """All points [N, C], and the frame of each."""
    if not frames:
        raise LidarError("Expected at least one frame of points, got none.")
    for i, frame in enumerate(frames):
        if frame.dim() != 2 or frame.shape[1] < 3 or frame.dtype != torch.float32:
            raise LidarError(
                f"Frame {i}: expected points as float32 [N, >= 3] with x, y, z in metres first, got "
                f"{str(frame.dtype).removeprefix('torch.')} {list(frame.shape)}."
            )
    if len({(frame.shape[1], frame.device) for frame in frames}) > 1:
        raise LidarError("Expected frames of one width on one device. Read them with the same columns.")
    if grid.max_points is not None or grid.arithmetic != "float32":
        raise LidarError(
            "Expected a grid of float32 arithmetic without max_points; use scn_fx.lidar.voxelize for others."
        )
    points = torch.cat(list(frames))
    if len(points) and not bool((points.abs() <= _LARGEST).all()):  # NaN compares as false
        raise LidarError(
            f"Expected finite values of at most {_LARGEST:g}, got others. Remove such points first, and "
            "check that the file was read in the right format."
        )
    numbers = [torch.full((len(frame),), i, device=points.device) for i, frame in enumerate(frames)]
    return points, torch.cat(numbers)
