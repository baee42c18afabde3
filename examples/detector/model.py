# SPDX-License-Identifier: Apache-2.0
"""The network in training: the spconv encoder as it is, computed by our operators, and the dense head."""

from __future__ import annotations

import copy

import torch
from torch import nn

from scn_fx.capture import run_with_own_operators
from scn_fx.detection import BevHead, Detector, HeadOutput
from scn_fx.lidar.grids import VoxelGrid

__all__ = ["DetectorInTraining"]

_SCALES = (1 / 54, 1 / 54, 1 / 3, 1 / 64, 4.0)
"""Factors of x, y, z, intensity and time lag that bring them to one size."""


class DetectorInTraining(nn.Module):
    """Encoder and head over scaled features; `detector` gives the same network for raw features."""

    scales: torch.Tensor

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.encoder, self.head = detector.encoder, detector.head
        self.register_buffer("scales", torch.tensor(_SCALES), persistent=False)

    @classmethod
    def fresh(cls, grid: VoxelGrid, channels: tuple[int, ...], head_width: int) -> DetectorInTraining:
        """A network with random weights for `grid`."""
        z, y, x = grid.box_shape
        return cls(Detector.fresh(len(_SCALES), channels, grid=(x, y, z), head_width=head_width))

    @classmethod
    @torch.no_grad()
    def of(cls, detector: Detector) -> DetectorInTraining:
        """The network that goes on from a stored detector: `detector()` undoes it."""
        made = cls(copy.deepcopy(detector))
        made.encoder.conv_input[0].weight.div_(made.scales)
        return made

    def dense(self, features: torch.Tensor, indices: torch.Tensor, size: int) -> torch.Tensor:
        """The encoder's map [size, C, H, W] in float32; features raw, float32 [N, 5]."""
        scaled = features * self.scales
        args = self.encoder.arguments(scaled, indices, size)
        made: torch.Tensor = run_with_own_operators(self.encoder, *args)[0]
        return made

    def heads(self, dense: torch.Tensor) -> HeadOutput:
        """The head in bfloat16 where the device is good at it; BatchNorm keeps float32."""
        if dense.device.type != "cuda":
            output: HeadOutput = self.head(dense)
            return output
        with torch.autocast("cuda", torch.bfloat16):
            output = self.head(dense.to(memory_format=torch.channels_last))
        return output

    @torch.no_grad()
    def detector(self) -> Detector:
        """A copy for raw features, on the CPU in evaluation mode: the scales are in the first kernel.

        The first layer has no bias, so scaling its kernel column by column computes the same.
        """
        encoder, head = copy.deepcopy(self.encoder).cpu().eval(), copy.deepcopy(self.head).cpu().eval()
        assert isinstance(head, BevHead)
        head.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        encoder.conv_input[0].weight.mul_(self.scales.cpu())
        return Detector(encoder, head)
