# SPDX-License-Identifier: Apache-2.0
"""The sparse encoder of VoxelNeXt, which sums three levels into one sparse map seen from above."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import spconv.pytorch as spconv
import torch
from torch import nn

from scn_fx.zoo.blocks import ResidualBlock, conv_norm_relu, norm

__all__ = ["VoxelNeXtEncoder"]


class VoxelNeXtEncoder(nn.Module):
    """Residual encoder with the architecture of VoxelNeXt, with OpenPCDet's interface.

    Six levels of two residual blocks. The sites of the last two are brought to the grid of the fourth, all
    three levels are joined, and what lies at one place above the ground is summed: no dense map is made.
    Two convolutions of two dimensions follow. Args of the constructor:

        in_channels: columns of the voxel features.
        grid: number of voxels along (x, y, z); the sparse grid has one more layer in z.
        channels: width of the levels; the last three share one, as they are summed.
        out_channels: width of the result.
        bias: whether the convolutions of the residual blocks have a bias, as the original's do.
    """

    main_output = "encoded_spconv_tensor"
    """The `output` of `scn_fx.capture` that all layers lead to."""

    published: ClassVar[dict[str, Any]] = {
        "grid": (1440, 1440, 40),
        "channels": (16, 32, 64, 128),
        "out_channels": 128,
    }
    """Arguments of the constructor for the size that was published."""

    def __init__(
        self,
        in_channels: int = 5,
        grid: Sequence[int] = (64, 64, 40),
        channels: Sequence[int] = (4, 8, 8, 16),
        out_channels: int = 16,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.grid = tuple(int(n) for n in grid)
        self.sparse_shape = np.array(self.grid[::-1]) + np.array([1, 0, 0])
        widths = (*channels, channels[-1], channels[-1])

        def level(number: int) -> nn.Module:
            before, width = widths[number - 2], widths[number - 1]
            down = conv_norm_relu(before, width, stride=2, padding=1, indice_key=f"spconv{number}")
            same = [ResidualBlock(width, f"res{number}", bias=bias) for _ in range(2)]
            return spconv.SparseSequential(*down, *same)

        first = conv_norm_relu(in_channels, widths[0], padding=1, submanifold=True, indice_key="subm1")
        self.conv_input = spconv.SparseSequential(*first)
        self.conv1 = spconv.SparseSequential(*(ResidualBlock(widths[0], "res1", bias=bias) for _ in range(2)))
        self.conv2, self.conv3, self.conv4 = level(2), level(3), level(4)
        self.conv5, self.conv6 = level(5), level(6)
        out = conv_norm_relu(widths[-1], out_channels, padding=1, indice_key="spconv_down2", ndim=2)
        self.conv_out = spconv.SparseSequential(*out)
        shared = spconv.SubMConv2d(out_channels, out_channels, 3, padding=1, bias=bias)
        self.shared_conv = spconv.SparseSequential(shared, norm(out_channels), nn.ReLU(True))

    def arguments(
        self, features: torch.Tensor, indices: torch.Tensor, batch_size: int = 1
    ) -> tuple[Any, ...]:
        """Positional arguments of `forward` for a frame: features [N, C], indices int32 [N, 4]."""
        return ({"voxel_features": features, "voxel_coords": indices, "batch_size": batch_size},)

    @staticmethod
    def _from_above(x: Any) -> Any:
        """Sums of all that lies above one cell of the ground, as a sparse tensor of two dimensions."""
        cells, rows = torch.unique(x.indices[:, [0, 2, 3]], dim=0, return_inverse=True)
        sums = x.features.new_zeros((cells.shape[0], x.features.shape[1]))
        sums.index_add_(0, rows, x.features)
        return spconv.SparseConvTensor(
            features=sums, indices=cells, spatial_shape=x.spatial_shape[1:], batch_size=x.batch_size
        )

    def forward(self, batch_dict: dict[str, Any]) -> dict[str, Any]:
        """Adds `encoded_spconv_tensor`, a sparse tensor of two dimensions, to the dict."""
        x = spconv.SparseConvTensor(
            features=batch_dict["voxel_features"],
            indices=batch_dict["voxel_coords"].int(),
            spatial_shape=self.sparse_shape,
            batch_size=batch_dict["batch_size"],
        )
        x_conv4 = self.conv4(self.conv3(self.conv2(self.conv1(self.conv_input(x)))))
        x_conv5 = self.conv5(x_conv4)
        x_conv6 = self.conv6(x_conv5)
        x_conv5.indices[:, 1:] *= 2
        x_conv6.indices[:, 1:] *= 4
        levels = (x_conv4, x_conv5, x_conv6)
        joined = x_conv4.replace_feature(torch.cat([level.features for level in levels]))
        joined.indices = torch.cat([level.indices for level in levels])
        batch_dict["encoded_spconv_tensor"] = self.shared_conv(self.conv_out(self._from_above(joined)))
        return batch_dict
