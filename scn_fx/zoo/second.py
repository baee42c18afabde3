# SPDX-License-Identifier: Apache-2.0
"""The sparse encoders of SECOND and its residual variant, with OpenPCDet's interface: a dict in and out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import spconv.pytorch as spconv
import torch
from torch import nn

from scn_fx.zoo.blocks import ResidualBlock, conv_norm_relu

__all__ = ["SecondEncoder", "SecondResEncoder"]


class _Encoder(nn.Module):
    """What both encoders share: four levels from the subclass, a last convolution, the dict.

    Args of the constructor:
        in_channels: columns of the voxel features.
        grid: number of voxels along (x, y, z); the sparse grid has one more layer in z.
        channels: width of the four levels, then of the output.
    """

    main_output = "encoded_spconv_tensor"
    """The `output` of `scn_fx.capture` that all layers lead to."""

    conv_input: nn.Module
    conv1: nn.Module
    conv2: nn.Module
    conv3: nn.Module
    conv4: nn.Module

    def __init__(self, in_channels: int, grid: Sequence[int], channels: Sequence[int]) -> None:
        super().__init__()
        self.grid = tuple(int(n) for n in grid)
        self.sparse_shape = np.array(self.grid[::-1]) + np.array([1, 0, 0])
        first = conv_norm_relu(in_channels, channels[0], padding=1, submanifold=True, indice_key="subm1")
        self.conv_input = spconv.SparseSequential(*first)
        last = conv_norm_relu(
            channels[3], channels[4], (3, 1, 1), stride=(2, 1, 1), indice_key="spconv_down2"
        )
        self.conv_out = spconv.SparseSequential(*last)

    def arguments(
        self, features: torch.Tensor, indices: torch.Tensor, batch_size: int = 1
    ) -> tuple[Any, ...]:
        """Positional arguments of `forward` for a frame: features [N, C], indices int32 [N, 4]."""
        return ({"voxel_features": features, "voxel_coords": indices, "batch_size": batch_size},)

    def forward(self, batch_dict: dict[str, Any]) -> dict[str, Any]:
        """Adds `encoded_spconv_tensor` and `multi_scale_3d_features` (sparse tensors) to the dict."""
        x = spconv.SparseConvTensor(
            features=batch_dict["voxel_features"],
            indices=batch_dict["voxel_coords"].int(),
            spatial_shape=self.sparse_shape,
            batch_size=batch_dict["batch_size"],
        )
        x = self.conv_input(x)
        x_conv1 = self.conv1(x)
        x_conv2 = self.conv2(x_conv1)
        x_conv3 = self.conv3(x_conv2)
        x_conv4 = self.conv4(x_conv3)
        batch_dict.update(
            {
                "encoded_spconv_tensor": self.conv_out(x_conv4),
                "encoded_spconv_tensor_stride": 8,
                "multi_scale_3d_features": {
                    "x_conv1": x_conv1,
                    "x_conv2": x_conv2,
                    "x_conv3": x_conv3,
                    "x_conv4": x_conv4,
                },
            }
        )
        return batch_dict


def _down(before: int, after: int, level: int) -> nn.Module:
    """The strided step into a level; the fourth has no padding in z (11 layers become 5)."""
    padding: int | tuple[int, ...] = (0, 1, 1) if level == 4 else 1
    return spconv.SparseSequential(
        *conv_norm_relu(before, after, stride=2, padding=padding, indice_key=f"spconv{level}")
    )


class SecondEncoder(_Encoder):
    """Plain encoder with the architecture of SECOND as in OpenPCDet's VoxelBackBone8x: 12 convolutions."""

    def __init__(
        self,
        in_channels: int = 4,
        grid: Sequence[int] = (1408, 1600, 40),
        channels: Sequence[int] = (16, 32, 64, 64, 128),
    ) -> None:
        super().__init__(in_channels, grid, channels)

        def same(width: int, level: int) -> nn.Module:
            key = f"subm{level}"
            return spconv.SparseSequential(
                *conv_norm_relu(width, width, padding=1, submanifold=True, indice_key=key)
            )

        def level(number: int) -> nn.Module:
            before, width = channels[number - 2], channels[number - 1]
            steps = (_down(before, width, number), same(width, number), same(width, number))
            return spconv.SparseSequential(*steps)

        self.conv1 = spconv.SparseSequential(same(channels[0], 1))
        self.conv2, self.conv3, self.conv4 = level(2), level(3), level(4)


class SecondResEncoder(_Encoder):
    """Residual encoder with the architecture of OpenPCDet's VoxelResBackBone8x: 21 convolutions."""

    def __init__(
        self,
        in_channels: int = 5,
        grid: Sequence[int] = (1440, 1440, 40),
        channels: Sequence[int] = (16, 32, 64, 128, 128),
        *,
        bias: bool = True,
    ) -> None:
        super().__init__(in_channels, grid, channels)

        def blocks(width: int, level: int) -> list[nn.Module]:
            return [ResidualBlock(width, f"res{level}", bias=bias) for _ in range(2)]

        def level(number: int) -> nn.Module:
            before, width = channels[number - 2], channels[number - 1]
            return spconv.SparseSequential(_down(before, width, number), *blocks(width, number))

        self.conv1 = spconv.SparseSequential(*blocks(channels[0], 1))
        self.conv2, self.conv3, self.conv4 = level(2), level(3), level(4)
