# SPDX-License-Identifier: Apache-2.0
"""The recursive U-Net of PointGroup, SoftGroup, SPFormer, OneFormer3D: BatchNorms before convolutions."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, ClassVar

import spconv.pytorch as spconv
import torch
from torch import nn

__all__ = ["PointGroupUNet"]


def _norm(channels: int) -> nn.BatchNorm1d:
    return nn.BatchNorm1d(channels, eps=1e-4, momentum=0.1)


class PreActivationBlock(spconv.SparseModule):
    """BatchNorm, ReLU, convolution, twice; added to the input, projected where the channels change."""

    def __init__(self, in_channels: int, out_channels: int, indice_key: str) -> None:
        super().__init__()
        if in_channels == out_channels:
            self.i_branch = spconv.SparseSequential(nn.Identity())
        else:
            project = spconv.SubMConv3d(in_channels, out_channels, kernel_size=1, bias=False)
            self.i_branch = spconv.SparseSequential(project)

        def conv(channels: int) -> list[nn.Module]:
            made = spconv.SubMConv3d(channels, out_channels, 3, padding=1, bias=False, indice_key=indice_key)
            return [_norm(channels), nn.ReLU(), made]

        self.conv_branch = spconv.SparseSequential(*conv(in_channels), *conv(out_channels))

    def forward(self, x: Any) -> Any:
        """SparseConvTensor in, SparseConvTensor out."""
        identity = spconv.SparseConvTensor(x.features, x.indices, x.spatial_shape, x.batch_size)
        output = self.conv_branch(x)
        return output.replace_feature(output.features + self.i_branch(identity).features)


class UBlock(nn.Module):
    """A level of the U-Net: blocks, a strided convolution, the level below, its inverse, blocks.

    Args of the constructor:
        planes: width of this level and those below.
        reps: blocks before and after the level below.
        level: number of this level, for the keys of its kernel maps.
    """

    def __init__(self, planes: Sequence[int], reps: int, level: int = 1) -> None:
        super().__init__()
        self.planes = tuple(planes)
        width, key = planes[0], f"subm{level}"

        def blocks(first: int) -> nn.Module:
            made = [PreActivationBlock(first if i == 0 else width, width, key) for i in range(reps)]
            return spconv.SparseSequential(OrderedDict((f"block{i}", b) for i, b in enumerate(made)))

        self.blocks = blocks(width)
        if len(planes) > 1:
            below, key_down = planes[1], f"spconv{level}"
            down = spconv.SparseConv3d(width, below, 2, stride=2, bias=False, indice_key=key_down)
            self.conv = spconv.SparseSequential(_norm(width), nn.ReLU(), down)
            self.u = UBlock(planes[1:], reps, level + 1)
            up = spconv.SparseInverseConv3d(below, width, 2, bias=False, indice_key=key_down)
            self.deconv = spconv.SparseSequential(_norm(below), nn.ReLU(), up)
            self.blocks_tail = blocks(2 * width)

    def forward(self, x: Any) -> Any:
        """SparseConvTensor in, SparseConvTensor out."""
        output = self.blocks(x)
        identity = spconv.SparseConvTensor(
            output.features, output.indices, output.spatial_shape, output.batch_size
        )
        if len(self.planes) > 1:
            decoded = self.deconv(self.u(self.conv(output)))
            output = output.replace_feature(torch.cat((identity.features, decoded.features), dim=1))
            output = self.blocks_tail(output)
        return output


class PointGroupUNet(nn.Module):
    """U-Net and heads with the architecture of PointGroup, on voxels: scores of classes, and offsets.

    Args of the constructor:
        in_channels: columns of the voxel features.
        classes: columns of the scores.
        m: width of the first level; the others have its multiples.
        levels: how many there are.
        block_reps: blocks before and after each level below.
        grid: number of voxels along (x, y, z).
    """

    main_output = "semantic_scores"
    """The `output` of `scn_fx.capture` that the U-Net and one head lead to."""

    published: ClassVar[dict[str, Any]] = {
        "classes": 20,
        "m": 16,
        "levels": 7,
        "block_reps": 2,
        "grid": (512, 512, 127),  # seven levels need one of at least 64 cells each way
    }
    """Arguments of the constructor for the size that was published."""

    def __init__(
        self,
        in_channels: int = 6,
        classes: int = 5,
        m: int = 8,
        levels: int = 3,
        block_reps: int = 1,
        *,
        grid: Sequence[int] = (64, 64, 40),
    ) -> None:
        super().__init__()
        self.grid = tuple(int(n) for n in grid)
        first = spconv.SubMConv3d(in_channels, m, kernel_size=3, padding=1, bias=False, indice_key="subm1")
        self.input_conv = spconv.SparseSequential(first)
        self.unet = UBlock([m * (i + 1) for i in range(levels)], block_reps)
        self.output_layer = spconv.SparseSequential(_norm(m), nn.ReLU())
        self.linear = nn.Linear(m, classes)
        self.offset = nn.Sequential(nn.Linear(m, m), _norm(m), nn.ReLU())
        self.offset_linear = nn.Linear(m, 3)

    def arguments(
        self, features: torch.Tensor, indices: torch.Tensor, batch_size: int = 1
    ) -> tuple[Any, ...]:
        """Positional arguments of `forward` for a frame: features [N, C], indices int32 [N, 4]."""
        shape = [self.grid[2] + 1, *self.grid[1::-1]]
        return (spconv.SparseConvTensor(features, indices.int(), shape, batch_size),)

    def forward(self, x: Any) -> dict[str, torch.Tensor]:
        """`semantic_scores` [N, classes] and `pt_offsets` [N, 3] of the voxels of a SparseConvTensor."""
        output = self.output_layer(self.unet(self.input_conv(x)))
        scores = self.linear(output.features)
        return {"semantic_scores": scores, "pt_offsets": self.offset_linear(self.offset(output.features))}
