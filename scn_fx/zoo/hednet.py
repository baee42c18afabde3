# SPDX-License-Identifier: Apache-2.0
"""The sparse encoder of HEDNet, whose layers are small encoder-decoders with BatchNorms behind sums."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import spconv.pytorch as spconv
import torch
from torch import nn

from scn_fx.zoo.blocks import ResidualBlock, conv_norm_relu, norm, with_features

__all__ = ["HEDNetEncoder"]


class SEDLayer(spconv.SparseModule):
    """A sparse encoder-decoder: levels of residual blocks down, inverse convolutions and sums up.

    Args of the constructor:
        dim: channels.
        strides: of each level; the first is 1.
        blocks: residual blocks of each level.
        indice_key: prefix of the keys of its kernel maps.
        bias: whether the convolutions of the blocks have a bias, as the original's do.
    """

    def __init__(
        self, dim: int, strides: Sequence[int], blocks: Sequence[int], indice_key: str, bias: bool
    ) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.ModuleList(), nn.ModuleList()
        self.decoder_norm = nn.ModuleList()
        for level, (stride, count) in enumerate(zip(strides, blocks, strict=True)):
            key = f"spconv_{indice_key}_{level}"
            layers = conv_norm_relu(dim, dim, 3, stride=stride, padding=1, indice_key=key)
            first = spconv.SparseSequential(*layers) if stride > 1 else nn.Identity()
            same = [ResidualBlock(dim, f"{indice_key}_{level}", bias=bias) for _ in range(count)]
            self.encoder.append(spconv.SparseSequential(first, *same))
        for level in range(len(strides) - 1, 0, -1):
            key = f"spconv_{indice_key}_{level}"
            up = spconv.SparseInverseConv3d(dim, dim, 3, indice_key=key, bias=False)
            self.decoder.append(spconv.SparseSequential(up, norm(dim), nn.ReLU()))
            self.decoder_norm.append(norm(dim))

    def forward(self, x: Any) -> Any:
        """SparseConvTensor in, SparseConvTensor out."""
        levels = []
        for stage in self.encoder:
            x = stage(x)
            levels.append(x)
        for up, normalise, beside in zip(self.decoder, self.decoder_norm, levels[-2::-1], strict=True):
            x = up(x)
            x = with_features(x, x.features + beside.features)
            x = with_features(x, normalise(x.features))
        return x


class HEDNetEncoder(nn.Module):
    """Encoder with the architecture of HEDNet's sparse part.

    Args of the constructor:
        in_channels: columns of the voxel features.
        grid: number of voxels along (x, y, z); the sparse grid has one more layer in z.
        channels: width of the stem and of the three stages behind it.
        layers: SED layers of the last stage.
        blocks: residual blocks of each level of a SED layer.
        strides: of each level of a SED layer.
        bias: whether the convolutions of the blocks have a bias, as the original's do.
    """

    main_output = "encoded_spconv_tensor"
    """The `output` of `scn_fx.capture` that all layers lead to."""

    published: ClassVar[dict[str, Any]] = {
        "grid": (1888, 1888, 40),
        "channels": (16, 32, 64, 128),
        "layers": 2,
        "blocks": (2, 1, 1),
        "strides": (1, 2, 2),
    }
    """Arguments of the constructor for the size that was published."""

    def __init__(
        self,
        in_channels: int = 5,
        grid: Sequence[int] = (64, 64, 40),
        channels: Sequence[int] = (4, 8, 8, 16),
        layers: int = 1,
        blocks: Sequence[int] = (1, 1),
        strides: Sequence[int] = (1, 2),
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        stem, c2, c3, dim = channels
        self.grid = tuple(int(n) for n in grid)
        self.sparse_shape = np.array(self.grid[::-1]) + np.array([1, 0, 0])

        def down(before: int, after: int, number: int, stride: int | tuple[int, ...] = 2) -> nn.Module:
            key = f"spconv{number}"
            made = conv_norm_relu(before, after, stride=stride, padding=1, indice_key=key)
            return spconv.SparseSequential(*made)

        def sed(width: int, number: int) -> nn.Module:
            return SEDLayer(width, strides, blocks, f"sedlayer{number}", bias)

        first = conv_norm_relu(in_channels, stem, padding=1, submanifold=True, indice_key="subm1")
        same = [ResidualBlock(stem, "stem", bias=bias) for _ in range(2)]
        self.conv1 = spconv.SparseSequential(spconv.SparseSequential(*first), *same, down(stem, c2, 1))
        self.conv2 = spconv.SparseSequential(sed(c2, 2), down(c2, c3, 2))
        self.conv3 = spconv.SparseSequential(sed(c3, 3), down(c3, dim, 3, (1, 2, 2)))
        self.layers = nn.ModuleList([sed(dim, 4 + i) for i in range(layers)])

        def flat(number: int) -> list[nn.Module]:
            return conv_norm_relu(dim, dim, (3, 1, 1), stride=(2, 1, 1), indice_key=f"spconv{number}")

        self.conv_out = spconv.SparseSequential(*flat(4), *flat(5))

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
        x = self.conv3(self.conv2(self.conv1(x)))
        for layer in self.layers:
            x = layer(x)
        batch_dict["encoded_spconv_tensor"] = self.conv_out(x)
        return batch_dict
