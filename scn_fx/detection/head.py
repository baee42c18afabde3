# SPDX-License-Identifier: Apache-2.0
"""The dense part of the detector: a small bird's-eye-view neck, and a head of centres and boxes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from scn_fx.lidar.boxes import CLASSES

__all__ = ["BOX_CHANNELS", "BevHead", "HeadOutput"]

BOX_CHANNELS = 10
"""Offset x, y in cells; z in metres; logarithms of length, width, height; sin, cos of yaw; velocity x, y in
10 m/s."""

_PRIOR = 0.02  # probability that a fresh head gives every cell: most have no object


@dataclass(frozen=True)
class HeadOutput:
    """Maps of the head, float [B, …, H, W]; H along y, W along x."""

    heat: torch.Tensor
    """[B, classes, H, W]: logits of an object's centre."""
    box: torch.Tensor
    """[B, BOX_CHANNELS, H, W]."""


def _step(before: int, after: int, stride: int = 1, size: int = 3) -> list[nn.Module]:
    return [
        nn.Conv2d(before, after, size, stride, padding=size // 2, bias=False),
        nn.BatchNorm2d(after, eps=1e-3, momentum=0.03),
        nn.ReLU(inplace=True),
    ]


class BevHead(nn.Module):
    """Neck and head over the encoder's dense map, after CenterPoint (Yin et al., CVPR 2021) but narrow.

    The neck has a fine branch and a coarse one of half its resolution; both are joined in front of a shared
    convolution, which a heatmap of centres and a map of boxes branch off.

    Args:
        in_channels: channels of the dense map.
        width: of the fine branch and the head; the coarse branch has one and a half times as many.
        classes: number of classes.
    """

    def __init__(self, in_channels: int = 256, width: int = 64, classes: int = len(CLASSES)) -> None:
        super().__init__()
        self.in_channels, self.width, self.classes = in_channels, width, classes
        wide = width * 3 // 2
        fine = [step for _ in range(2) for step in _step(width, width)]
        self.fine = nn.Sequential(*_step(in_channels, width), *fine)
        coarse = [step for _ in range(3) for step in _step(wide, wide)]
        self.coarse = nn.Sequential(*_step(width, wide, stride=2), *coarse)
        self.up = nn.Sequential(
            nn.ConvTranspose2d(wide, width, 2, 2, bias=False),
            nn.BatchNorm2d(width, eps=1e-3, momentum=0.03),
            nn.ReLU(inplace=True),
        )
        self.shared = nn.Sequential(*_step(2 * width, width))
        self.heat = nn.Sequential(*_step(width, width), nn.Conv2d(width, classes, 1))
        self.box = nn.Sequential(*_step(width, width), nn.Conv2d(width, BOX_CHANNELS, 1))
        nn.init.constant_(self.heat[-1].bias, math.log(_PRIOR / (1 - _PRIOR)))  # type: ignore[arg-type]

    def forward(self, dense: torch.Tensor) -> HeadOutput:
        """`dense`: float [B, in_channels, H, W] with even H and W."""
        fine = self.fine(dense)
        both = torch.cat([fine, self.up(self.coarse(fine))], 1)
        shared = self.shared(both)
        return HeadOutput(self.heat(shared), self.box(shared))
