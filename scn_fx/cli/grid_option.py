# SPDX-License-Identifier: Apache-2.0
"""The options `--grid` and `--format` that commands share."""

from __future__ import annotations

import click

from scn_fx.lidar import GRID_SYNTAX, POINT_FORMATS, VoxelGrid, parse_grid

__all__ = ["format_option", "grid_option"]


def _parse(ctx: click.Context, option: click.Parameter, text: str | None) -> VoxelGrid | None:
    return None if text is None else parse_grid(text)


grid_option = click.option(
    "--grid",
    callback=_parse,
    metavar="GRID",
    help=f"Voxel grid of network and points: {GRID_SYNTAX}. Default: what the network or its file says.",
)
"""Gives a `VoxelGrid`, or None where it is left out; LidarError for a text that is no grid."""

format_option = click.option(
    "--format",
    "point_format",
    type=click.Choice([*POINT_FORMATS, "tensor"]),
    help="Format of raw point files; guessed for each file if left out.",
)
