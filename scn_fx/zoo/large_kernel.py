# SPDX-License-Identifier: Apache-2.0
"""The encoder of LargeKernel3D: kernels up to 7x7x7, the first of which stand beside dilated ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import spconv.pytorch as spconv
import torch
from torch import nn

from scn_fx.zoo.blocks import conv_norm_relu, norm, with_features

__all__ = ["LargeKernelEncoder"]


class SpatialGroupConv(spconv.SparseModule):
    """Sum of a convolution with a large kernel and a dilated 3x3x3 one over the same reach.

    In training the original makes the weights of the large kernel's groups of offsets equal; what is trained
    is an ordinary kernel.
    """

    def __init__(self, channels: int, kernel_size: int, indice_key: str, bias: bool) -> None:
        super().__init__()
        half = kernel_size // 2
        self.block = spconv.SubMConv3d(
            channels, channels, kernel_size, padding=half, bias=bias, indice_key=indice_key
        )
        self.conv3x3_1 = spconv.SubMConv3d(
            channels, channels, 3, padding=half - 1, dilation=half - 1, bias=bias,
            indice_key=f"{indice_key}conv_3x3_1",
        )  # fmt: skip

    def forward(self, x: Any) -> Any:
        """SparseConvTensor in, SparseConvTensor out."""
        large = self.block(x)
        return large.replace_feature(large.features + self.conv3x3_1(x).features)


class LargeKernelBlock(spconv.SparseModule):
    """A residual block of two convolutions, each a SpatialGroupConv or an ordinary one."""

    def __init__(self, channels: int, kernel_size: int, indice_key: str, conv_type: str, bias: bool) -> None:
        super().__init__()

        def conv() -> nn.Module:
            if conv_type == "spatialgroupconv":
                return SpatialGroupConv(channels, kernel_size, indice_key, bias)
            half = kernel_size // 2
            return spconv.SubMConv3d(
                channels, channels, kernel_size, padding=half, bias=bias, indice_key=indice_key
            )

        self.conv1, self.bn1 = conv(), norm(channels)
        self.relu = nn.ReLU()
        self.conv2, self.bn2 = conv(), norm(channels)

    def forward(self, x: Any) -> Any:
        """SparseConvTensor in, SparseConvTensor out."""
        out = self.conv1(x)
        out = with_features(out, self.relu(self.bn1(out.features)))
        out = self.conv2(out)
        out = with_features(out, self.bn2(out.features))
        return with_features(out, self.relu(out.features + x.features))


class LargeKernelEncoder(nn.Module):
    """Encoder with the architecture of LargeKernel3D's VoxelResBackBone8xLargeKernel3D.

    Args of the constructor:
        in_channels: columns of the voxel features.
        grid: number of voxels along (x, y, z); the sparse grid has one more layer in z.
        channels: width of the four levels.
        kernel_sizes: of the blocks of each level.
        down_sizes: kernels of the first two strided convolutions.
        conv_types: of each level, "spatialgroupconv" or "common".
        bias: whether the convolutions of the blocks have a bias, as the original's do.
    """

    main_output = "encoded_spconv_tensor"
    """The `output` of `scn_fx.capture` that all layers lead to."""

    published: ClassVar[dict[str, Any]] = {"grid": (1440, 1440, 40), "channels": (16, 32, 64, 128)}
    """Arguments of the constructor for the size that was published."""

    def __init__(
        self,
        in_channels: int = 5,
        grid: Sequence[int] = (64, 64, 40),
        channels: Sequence[int] = (4, 8, 8, 16),
        kernel_sizes: Sequence[int] = (7, 5, 5, 3),
        down_sizes: Sequence[int] = (5, 5),
        conv_types: Sequence[str] = ("spatialgroupconv", "common", "common", "common"),
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.grid = tuple(int(n) for n in grid)
        self.sparse_shape = np.array(self.grid[::-1]) + np.array([1, 0, 0])

        def blocks(level: int) -> list[nn.Module]:
            sizes = channels[level - 1], kernel_sizes[level - 1]
            kind = conv_types[level - 1]
            return [LargeKernelBlock(*sizes, f"res{level}", kind, bias) for _ in range(2)]

        def level(number: int, size: int, padding: int | tuple[int, ...]) -> nn.Module:
            before, width = channels[number - 2], channels[number - 1]
            key = f"spconv{number}"
            down = conv_norm_relu(before, width, size, stride=2, padding=padding, indice_key=key)
            return spconv.SparseSequential(spconv.SparseSequential(*down), *blocks(number))

        first = conv_norm_relu(in_channels, channels[0], padding=1, submanifold=True, indice_key="subm1")
        self.conv_input = spconv.SparseSequential(*first)
        self.conv1 = spconv.SparseSequential(*blocks(1))
        self.conv2 = level(2, down_sizes[0], down_sizes[0] // 2)
        self.conv3 = level(3, down_sizes[1], down_sizes[1] // 2)
        self.conv4 = level(4, 3, (0, 1, 1))
        last = channels[3]
        out = conv_norm_relu(last, last, (3, 1, 1), stride=(2, 1, 1), indice_key="spconv_down2")
        self.conv_out = spconv.SparseSequential(*out)

    def arguments(
        self, features: torch.Tensor, indices: torch.Tensor, batch_size: int = 1
    ) -> tuple[Any, ...]:
        """Positional arguments of `forward` for a frame: features [N, C], indices int32 [N, 4]."""
        return ({"voxel_features": features, "voxel_coords": indices, "batch_size": batch_size},)

    def forward(self, batch_dict: dict[str, Any]) -> dict[str, Any]:
        """Adds `encoded_spconv_tensor` (a sparse tensor) to the dict."""
        x = spconv.SparseConvTensor(
            features=batch_dict["voxel_features"],
            indices=batch_dict["voxel_coords"].int(),
            spatial_shape=self.sparse_shape,
            batch_size=batch_dict["batch_size"],
        )
        for stage in (self.conv_input, self.conv1, self.conv2, self.conv3, self.conv4):
            x = stage(x)
        batch_dict["encoded_spconv_tensor"] = self.conv_out(x)
        return batch_dict
