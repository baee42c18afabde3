# SPDX-License-Identifier: Apache-2.0
"""The sparse 2D encoder of PillarNet-18, with OpenPCDet's interface: a dict of pillars in and out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import spconv.pytorch as spconv
import torch
from torch import nn

from scn_fx.zoo.blocks import ResidualBlock, conv_norm_relu

__all__ = ["PillarNetEncoder"]


class PillarNetEncoder(nn.Module):
    """Residual 2D encoder with the architecture of PillarNet-18, as OpenPCDet's PillarRes18BackBone8x has it.

    Four levels of two residual blocks with strided convolutions between them, 20 convolutions on pillars, and
    the dense map of the last level. The dense levels that follow in a detector are not part of it. Args of
    the constructor:

        in_channels: columns of the pillar features. PillarNet's own pillar encoder gives as many as the first
            level has.
        grid: number of pillars along (x, y); more axes are not looked at.
        channels: width of the four levels.
        bias: whether the convolutions of the residual blocks have a bias, as the original's do.
    """

    main_output = ("multi_scale_2d_features", "x_conv4")
    """The `output` of `scn_fx.capture` that all layers lead to: the dense map."""

    def __init__(
        self,
        in_channels: int = 5,
        grid: Sequence[int] = (1440, 1440),
        channels: Sequence[int] = (32, 64, 128, 256),
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.grid = tuple(int(n) for n in grid[:2])
        self.sparse_shape = list(self.grid[::-1])

        def blocks(width: int, level: int) -> list[nn.Module]:
            return [ResidualBlock(width, f"res{level}", bias=bias, ndim=2) for _ in range(2)]

        def level(number: int) -> nn.Module:
            before, width = channels[number - 2], channels[number - 1]
            key = f"spconv{number}"
            down = conv_norm_relu(before, width, stride=2, padding=1, indice_key=key, ndim=2)
            return spconv.SparseSequential(*down, *blocks(width, number))

        first = conv_norm_relu(in_channels, channels[0], submanifold=True, indice_key="res1", ndim=2)
        self.conv1 = spconv.SparseSequential(*first, *blocks(channels[0], 1))
        self.conv2, self.conv3, self.conv4 = level(2), level(3), level(4)

    def arguments(
        self, features: torch.Tensor, indices: torch.Tensor, batch_size: int = 1
    ) -> tuple[Any, ...]:
        """Positional arguments of `forward` for a frame: features [N, C], indices int32 [N, 3]."""
        return ({"pillar_features": features, "pillar_coords": indices, "batch_size": batch_size},)

    def forward(self, batch_dict: dict[str, Any]) -> dict[str, Any]:
        """Adds `multi_scale_2d_features` to the dict: three sparse tensors, and a dense map [B, C, H, W]."""
        x = spconv.SparseConvTensor(
            features=batch_dict["pillar_features"],
            indices=batch_dict["pillar_coords"].int(),
            spatial_shape=self.sparse_shape,
            batch_size=batch_dict["batch_size"],
        )
        x_conv1 = self.conv1(x)
        x_conv2 = self.conv2(x_conv1)
        x_conv3 = self.conv3(x_conv2)
        x_conv4 = self.conv4(x_conv3).dense()
        batch_dict.update(
            {
                "multi_scale_2d_features": {
                    "x_conv1": x_conv1,
                    "x_conv2": x_conv2,
                    "x_conv3": x_conv3,
                    "x_conv4": x_conv4,
                },
                "multi_scale_2d_strides": {"x_conv1": 1, "x_conv2": 2, "x_conv3": 4, "x_conv4": 8},
            }
        )
        return batch_dict
