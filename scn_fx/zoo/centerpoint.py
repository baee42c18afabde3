# SPDX-License-Identifier: Apache-2.0
"""The sparse encoder of CenterPoint: 21 convolutions, a bird's-eye view of 1/8 resolution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import spconv.pytorch as spconv
import torch
from torch import nn

from scn_fx.zoo.blocks import ResidualBlock, conv_norm_relu

__all__ = ["CenterPointEncoder"]


class CenterPointEncoder(nn.Module):
    """Residual encoder with the architecture of CenterPoint's SpMiddleResNetFHD.

    Four levels of two residual blocks; strided convolutions between them without an `indice_key`; a last
    convolution halves z. Args of the constructor:

        in_channels: columns of the voxel features.
        channels: width of the four levels.
        grid: number of voxels along (x, y, z), for `arguments`; the sparse grid has one more layer in z.
        bias: whether the convolutions of the residual blocks have a bias, as the original's do.
    """

    main_output = 0
    """The `output` of `scn_fx.capture` that all layers lead to: the dense map."""

    def __init__(
        self,
        in_channels: int = 5,
        channels: Sequence[int] = (16, 32, 64, 128),
        *,
        grid: Sequence[int] = (1440, 1440, 40),
        bias: bool = True,
    ) -> None:
        super().__init__()
        c1, c2, c3, c4 = channels
        self.grid = tuple(int(n) for n in grid)

        def blocks(width: int, key: str) -> list[nn.Module]:
            return [ResidualBlock(width, key, bias=bias) for _ in range(2)]

        def down(before: int, after: int, padding: int | Sequence[int]) -> list[nn.Module]:
            return conv_norm_relu(before, after, stride=2, padding=padding, inplace=True)

        first = conv_norm_relu(in_channels, c1, submanifold=True, indice_key="res0", inplace=True)
        self.conv_input = spconv.SparseSequential(*first)
        self.conv1 = spconv.SparseSequential(*blocks(c1, "res0"))
        self.conv2 = spconv.SparseSequential(*down(c1, c2, 1), *blocks(c2, "res1"))
        self.conv3 = spconv.SparseSequential(*down(c2, c3, 1), *blocks(c3, "res2"))
        self.conv4 = spconv.SparseSequential(*down(c3, c4, (0, 1, 1)), *blocks(c4, "res3"))
        self.extra_conv = spconv.SparseSequential(*conv_norm_relu(c4, c4, (3, 1, 1), stride=(2, 1, 1)))

    def arguments(
        self, features: torch.Tensor, indices: torch.Tensor, batch_size: int = 1
    ) -> tuple[Any, ...]:
        """Positional arguments of `forward` for a frame: features [N, C], indices int32 [N, 4]."""
        return features, indices, batch_size, list(self.grid)

    def forward(
        self, voxel_features: torch.Tensor, coors: torch.Tensor, batch_size: int, input_shape: Sequence[int]
    ) -> tuple[torch.Tensor, dict[str, Any]]:
        """Dense map [batch_size, C * D, H, W], and the sparse tensors of the four levels by name.

        `input_shape` is the grid (x, y, z).
        """
        shape = np.array(input_shape[::-1]) + np.array([1, 0, 0])
        x = spconv.SparseConvTensor(voxel_features, coors.int(), shape, batch_size)
        x = self.conv_input(x)
        x_conv1 = self.conv1(x)
        x_conv2 = self.conv2(x_conv1)
        x_conv3 = self.conv3(x_conv2)
        x_conv4 = self.conv4(x_conv3)
        bev = self.extra_conv(x_conv4).dense()
        n, c, d, h, w = bev.shape
        levels = {"conv1": x_conv1, "conv2": x_conv2, "conv3": x_conv3, "conv4": x_conv4}
        return bev.view(n, c * d, h, w), levels
