# SPDX-License-Identifier: Apache-2.0
"""The definitions of `scn_fx.zoo`, in the sizes of the table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.models.stages import Result, run_stages

__all__ = ["DEFINITIONS", "Definition", "zoo_results"]


@dataclass(frozen=True)
class Definition:
    """A network of `scn_fx.zoo`, the family that it stands for, and its outputs in the table."""

    name: str
    family: str
    outputs: tuple[Any, ...]
    in_channels: int


_HEIGHT = 40
"""Voxels along z of the frame that pillars are made of."""

_LEVEL = ("multi_scale_3d_features", "x_conv3")

DEFINITIONS = (
    Definition("CenterPointEncoder", "CenterPoint", (0, (1, "conv3")), 5),
    Definition("SecondEncoder", "SECOND, PV-RCNN, Voxel R-CNN", ("encoded_spconv_tensor", _LEVEL), 4),
    Definition("SecondResEncoder", "OpenPCDet's CenterPoint", ("encoded_spconv_tensor", _LEVEL), 5),
    Definition("UNetV2", "Part-A2", ("encoded_spconv_tensor", "point_features"), 4),
    Definition("LargeKernelEncoder", "LargeKernel3D", ("encoded_spconv_tensor",), 5),
    Definition("HEDNetEncoder", "HEDNet", ("encoded_spconv_tensor",), 5),
    Definition("VoxelNeXtEncoder", "VoxelNeXt", ("encoded_spconv_tensor",), 5),
    Definition("SpUNet", "Pointcept SpUNet", (0,), 6),
    Definition(
        "PointGroupUNet",
        "PointGroup, SoftGroup, SPFormer, OneFormer3D",
        ("semantic_scores", "pt_offsets"),
        6,
    ),
    Definition(
        "PillarNetEncoder",
        "PillarNet, a 2D network",
        (("multi_scale_2d_features", "x_conv4"), ("multi_scale_2d_features", "x_conv3")),
        5,
    ),
)


def zoo_results(
    only: tuple[str, ...] = (), *, published: bool = True, voxels: int = 1500, cuda: bool = False
) -> Iterator[Result]:
    """A result for each network and output, as they come.

    Args:
        only: names of networks; all if empty.
        published: the published sizes, or the small ones that constructors have by default.
        voxels: about how many the frame has.
        cuda: whether to run the engine on a GPU as well.
    """
    from scn_fx import zoo

    for definition in DEFINITIONS:
        if only and definition.name not in only:
            continue
        made = getattr(zoo, definition.name)
        options = getattr(made, "published", {}) if published else {}
        model = made(definition.in_channels, **options)
        frame = _frame(model.grid, voxels, definition.in_channels)
        zoo.randomise_weights(model, *frame)
        for output in definition.outputs:
            yield run_stages(definition.name, model, model.arguments(*frame), output, cuda=cuda)


def _frame(grid: tuple[int, ...], voxels: int, in_channels: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Features float32 [N, in_channels] and indices int32 [N, 4], or [N, 3] of pillars on a grid (x, y)."""
    from scn_fx.zoo import demo_frame

    if len(grid) == 3:
        return demo_frame(0, voxels, grid=grid, in_channels=in_channels)
    features, indices = demo_frame(0, voxels, grid=(*grid, _HEIGHT), in_channels=in_channels)
    pillars, rows = torch.unique(indices[:, [0, 2, 3]], dim=0, return_inverse=True)
    first = torch.full((len(pillars),), len(rows)).scatter_reduce(0, rows, torch.arange(len(rows)), "amin")
    return features[first], pillars
