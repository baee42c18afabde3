# SPDX-License-Identifier: Apache-2.0
"""The U-Net of Pointcept's SpUNet: five levels of residual blocks, decoder steps on concatenated features."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, ClassVar

import spconv.pytorch as spconv
import torch
from torch import nn

from scn_fx.zoo.blocks import norm

__all__ = ["SpUNet"]


class BasicBlock(spconv.SparseModule):
    """Two submanifold convolutions and a residual, projected where the number of channels changes."""

    def __init__(self, in_channels: int, channels: int, indice_key: str) -> None:
        super().__init__()
        if in_channels == channels:
            self.proj = spconv.SparseSequential(nn.Identity())
        else:
            project = spconv.SubMConv3d(in_channels, channels, kernel_size=1, bias=False)
            self.proj = spconv.SparseSequential(project, norm(channels))
        self.conv1 = spconv.SubMConv3d(in_channels, channels, 3, padding=1, bias=False, indice_key=indice_key)
        self.bn1 = norm(channels)
        self.relu = nn.ReLU()
        self.conv2 = spconv.SubMConv3d(channels, channels, 3, padding=1, bias=False, indice_key=indice_key)
        self.bn2 = norm(channels)

    def forward(self, x: Any) -> Any:
        """SparseConvTensor in, SparseConvTensor out."""
        out = self.conv1(x)
        out = out.replace_feature(self.relu(self.bn1(out.features)))
        out = self.conv2(out)
        out = out.replace_feature(self.bn2(out.features))
        out = out.replace_feature(out.features + self.proj(x).features)
        return out.replace_feature(self.relu(out.features))


class SpUNet(nn.Module):
    """U-Net with the architecture of Pointcept's SpUNet-v1m1, from `conv_input` on.

    The original computes grid and batch size from a cloud; here they are given. Args of the constructor:

        in_channels: columns of the voxel features.
        num_classes: columns of the result.
        base_channels: width of the first convolution.
        channels: width of the encoder's levels, then of the decoder's.
        layers: residual blocks of each of these.
        grid: number of voxels along (x, y, z).
    """

    main_output = 0
    """The `output` of `scn_fx.capture` that all layers lead to: the scores."""

    published: ClassVar[dict[str, Any]] = {
        "num_classes": 20,
        "base_channels": 32,
        "channels": (32, 64, 128, 256, 256, 128, 96, 96),
        "layers": (2, 3, 4, 6, 2, 2, 2, 2),
        "grid": (512, 512, 127),
    }
    """Arguments of the constructor for the size that was published."""

    def __init__(
        self,
        in_channels: int = 6,
        num_classes: int = 5,
        base_channels: int = 8,
        channels: Sequence[int] = (8, 12, 16, 16, 12, 8),
        layers: Sequence[int] = (1, 1, 2, 1, 1, 1),
        *,
        grid: Sequence[int] = (64, 64, 40),
    ) -> None:
        super().__init__()
        self.grid = tuple(int(n) for n in grid)
        self.num_stages = len(layers) // 2
        self.conv_input = spconv.SparseSequential(
            spconv.SubMConv3d(in_channels, base_channels, 5, padding=1, bias=False, indice_key="stem"),
            norm(base_channels),
            nn.ReLU(),
        )

        def step(kind: Any, before: int, after: int, stage: int, **options: Any) -> nn.Module:
            conv = kind(before, after, kernel_size=2, bias=False, indice_key=f"spconv{stage + 1}", **options)
            return spconv.SparseSequential(conv, norm(after), nn.ReLU())

        def blocks(first: int, width: int, count: int, key: str) -> nn.Module:
            made = [BasicBlock(first if i == 0 else width, width, key) for i in range(count)]
            return spconv.SparseSequential(OrderedDict((f"block{i}", b) for i, b in enumerate(made)))

        self.down, self.enc = nn.ModuleList(), nn.ModuleList()
        self.up, self.dec = nn.ModuleList(), nn.ModuleList()
        above, last = base_channels, channels[-1]
        for s in range(self.num_stages):
            width, below = channels[s], channels[len(channels) - s - 2]
            self.down.append(step(spconv.SparseConv3d, above, width, s, stride=2))
            self.enc.append(blocks(width, width, layers[s], f"subm{s + 1}"))
            self.up.append(step(spconv.SparseInverseConv3d, below, last, s))
            self.dec.append(blocks(last + above, last, layers[len(layers) - s - 1], f"subm{s}"))
            above, last = width, below
        self.final = spconv.SubMConv3d(channels[-1], num_classes, kernel_size=1, padding=1, bias=True)

    def arguments(
        self, features: torch.Tensor, indices: torch.Tensor, batch_size: int = 1
    ) -> tuple[Any, ...]:
        """Positional arguments of `forward` for a frame: features [N, C], indices int32 [N, 4]."""
        return features, indices, batch_size

    def forward(self, feat: torch.Tensor, indices: torch.Tensor, batch_size: int) -> torch.Tensor:
        """Scores [N, num_classes] of the voxels."""
        x = spconv.SparseConvTensor(feat, indices.int(), [self.grid[2] + 1, *self.grid[1::-1]], batch_size)
        x = self.conv_input(x)
        skips = [x]
        for s in range(self.num_stages):
            x = self.enc[s](self.down[s](x))
            skips.append(x)
        x = skips.pop(-1)
        for s in reversed(range(self.num_stages)):
            x = self.up[s](x)
            skip = skips.pop(-1)
            x = x.replace_feature(torch.cat((x.features, skip.features), dim=1))
            x = self.dec[s](x)
        x = self.final(x)
        return x.features
