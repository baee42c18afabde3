# SPDX-License-Identifier: Apache-2.0
"""The peer: spconv's PointToVoxel, the mean of what it keeps, and the encoder of `scn_fx.bench` in spconv."""

from __future__ import annotations

from typing import Any

import torch

from scn_fx.bench.model import ModelFiles
from scn_fx.errors import ArgumentError
from scn_fx.lidar import VoxelGrid

__all__ = ["KEPT", "SpconvPoints"]

KEPT = 10
"""Points of a voxel that the generator keeps, as training code has it."""


class SpconvPoints:
    """The voxels of points and the encoder behind them, in float32 on the CPU, in float16 on a GPU.

    Raises MissingPackageError without spconv, ArgumentError on a GPU if the installed one has no CUDA.
    """

    def __init__(self, files: ModelFiles, grid: VoxelGrid, device: str, columns: int, points: int) -> None:
        self._net: Any
        if device == "cpu":
            from scn_fx.bench.peer import SpconvPeer

            self._net = SpconvPeer(files)
        else:
            from scn_fx.bench.gpu.peer import SpconvGpuPeer

            self._net = SpconvGpuPeer(files, device)
        from spconv.pytorch.utils import PointToVoxel

        self._cpu = device == "cpu"
        self._generator = PointToVoxel(
            list(grid.voxel_size), list(grid.point_range), columns, points, KEPT, torch.device(device)
        )

    def voxels(self, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Features [N, C] and indices int32 [N, 4] of points float32 [P, C]."""
        kept, sites, counts = self._generator(points)
        features = kept.sum(1) / counts.clamp(min=1)[:, None].to(kept.dtype)
        return features, torch.nn.functional.pad(sites, (1, 0)).int()

    def map(self, points: torch.Tensor, threads: int) -> Any:
        """The dense map of points."""
        features, indices = self.voxels(points)
        if len(indices) == 0:
            raise ArgumentError("The frame has no point in the grid.")
        if self._cpu:
            self._net.load(features.numpy(), indices.numpy())
            return self._net(threads)
        self._net.load(features.half(), indices)
        return self._net()
