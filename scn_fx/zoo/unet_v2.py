# SPDX-License-Identifier: Apache-2.0
"""The U-Net of Part-A2 as in OpenPCDet's UNetV2: lateral blocks, merging convolutions, reduced channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import spconv.pytorch as spconv
import torch
from torch import nn

from scn_fx.zoo.blocks import ResidualBlock, conv_norm_relu, norm, with_features

__all__ = ["UNetV2"]


def _same(before: int, after: int, level: int) -> nn.Module:
    key = f"subm{level}"
    return spconv.SparseSequential(
        *conv_norm_relu(before, after, padding=1, submanifold=True, indice_key=key)
    )


def _inverse(before: int, after: int, level: int) -> nn.Module:
    conv = spconv.SparseInverseConv3d(before, after, 3, indice_key=f"spconv{level}", bias=False)
    return spconv.SparseSequential(conv, norm(after), nn.ReLU())


class UNetV2(nn.Module):
    """Encoder for a detector, and decoder for points, with the architecture of OpenPCDet's UNetV2.

    Args of the constructor:
        in_channels: columns of the voxel features.
        grid: number of voxels along (x, y, z); the sparse grid has one more layer in z.
        channels: width of the four levels, then of the detector's output. The decoder halves widths by
            adding neighbouring channels, so they must be multiples of each other.
    """

    main_output = "point_features"
    """The `output` of `scn_fx.capture` that all layers but `conv_out` lead to."""

    published: ClassVar[dict[str, Any]] = {"grid": (1408, 1600, 40), "channels": (16, 32, 64, 64, 128)}
    """Arguments of the constructor for the size that was published."""

    def __init__(
        self,
        in_channels: int = 4,
        grid: Sequence[int] = (64, 64, 40),
        channels: Sequence[int] = (4, 8, 16, 16, 24),
    ) -> None:
        super().__init__()
        c1, c2, c3, c4, out = channels
        self.grid = tuple(int(n) for n in grid)
        self.sparse_shape = np.array(self.grid[::-1]) + np.array([1, 0, 0])

        def level(before: int, width: int, number: int) -> nn.Module:
            padding: int | tuple[int, ...] = (0, 1, 1) if number == 4 else 1
            key = f"spconv{number}"
            down = conv_norm_relu(before, width, stride=2, padding=padding, indice_key=key)
            rest = (_same(width, width, number), _same(width, width, number))
            return spconv.SparseSequential(spconv.SparseSequential(*down), *rest)

        self.conv_input = _same(in_channels, c1, 1)
        self.conv1 = spconv.SparseSequential(_same(c1, c1, 1))
        self.conv2, self.conv3, self.conv4 = level(c1, c2, 2), level(c2, c3, 3), level(c3, c4, 4)
        last = conv_norm_relu(c4, out, (3, 1, 1), stride=(2, 1, 1), indice_key="spconv_down2")
        self.conv_out = spconv.SparseSequential(*last)
        # From the deepest level up: a block beside the encoder, a convolution of both, the step up.
        self.conv_up_t4, self.conv_up_m4 = ResidualBlock(c4, "subm4", bias=False), _same(2 * c4, c4, 4)
        self.inv_conv4 = _inverse(c4, c3, 4)
        self.conv_up_t3, self.conv_up_m3 = ResidualBlock(c3, "subm3", bias=False), _same(2 * c3, c3, 3)
        self.inv_conv3 = _inverse(c3, c2, 3)
        self.conv_up_t2, self.conv_up_m2 = ResidualBlock(c2, "subm2", bias=False), _same(2 * c2, c2, 2)
        self.inv_conv2 = _inverse(c2, c1, 2)
        self.conv_up_t1, self.conv_up_m1 = ResidualBlock(c1, "subm1", bias=False), _same(2 * c1, c1, 1)
        self.conv5 = spconv.SparseSequential(_same(c1, c1, 1))

    def arguments(
        self, features: torch.Tensor, indices: torch.Tensor, batch_size: int = 1
    ) -> tuple[Any, ...]:
        """Positional arguments of `forward` for a frame: features [N, C], indices int32 [N, 4]."""
        return ({"voxel_features": features, "voxel_coords": indices, "batch_size": batch_size},)

    @staticmethod
    def channel_reduction(x: Any, out_channels: int) -> Any:
        """Sums of neighbouring channels: a SparseConvTensor of `out_channels`, which divide x's."""
        n, in_channels = x.features.shape
        assert in_channels % out_channels == 0
        return with_features(x, x.features.view(n, out_channels, -1).sum(dim=2))

    def UR_block_forward(
        self, lateral: Any, bottom: Any, conv_t: nn.Module, conv_m: nn.Module, conv_inv: nn.Module
    ) -> Any:
        """A step of the decoder; `lateral` comes from the encoder, `bottom` from the step before."""
        x_trans = conv_t(lateral)
        x = with_features(x_trans, torch.cat((bottom.features, x_trans.features), dim=1))
        x_m = conv_m(x)
        x = self.channel_reduction(x, x_m.features.shape[1])
        return conv_inv(with_features(x, x_m.features + x.features))

    def forward(self, batch_dict: dict[str, Any]) -> dict[str, Any]:
        """Adds `encoded_spconv_tensor` (sparse) and `point_features` [N, C] to the dict."""
        x = spconv.SparseConvTensor(
            features=batch_dict["voxel_features"],
            indices=batch_dict["voxel_coords"].int(),
            spatial_shape=self.sparse_shape,
            batch_size=batch_dict["batch_size"],
        )
        x_conv1 = self.conv1(self.conv_input(x))
        x_conv2 = self.conv2(x_conv1)
        x_conv3 = self.conv3(x_conv2)
        x_conv4 = self.conv4(x_conv3)
        batch_dict["encoded_spconv_tensor"] = self.conv_out(x_conv4)
        x_up = self.UR_block_forward(x_conv4, x_conv4, self.conv_up_t4, self.conv_up_m4, self.inv_conv4)
        x_up = self.UR_block_forward(x_conv3, x_up, self.conv_up_t3, self.conv_up_m3, self.inv_conv3)
        x_up = self.UR_block_forward(x_conv2, x_up, self.conv_up_t2, self.conv_up_m2, self.inv_conv2)
        x_up = self.UR_block_forward(x_conv1, x_up, self.conv_up_t1, self.conv_up_m1, self.conv5)
        batch_dict["point_features"] = x_up.features
        return batch_dict
