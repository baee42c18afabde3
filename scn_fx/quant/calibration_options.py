# SPDX-License-Identifier: Apache-2.0
"""Options of calibration that other commands have too. Needs click and, for the formats, numpy."""

from __future__ import annotations

import click

from scn_fx.lidar import POINT_FORMATS
from scn_fx.quant import OUTLIERS

__all__ = [
    "budget_option",
    "format_option",
    "model_option",
    "most_frames_option",
    "outliers_option",
    "quiet_option",
]

model_option = click.option("--model", required=True, help="A model of the zoo, or package.module:callable.")
format_option = click.option(
    "--format",
    "point_format",
    type=click.Choice([*POINT_FORMATS, "tensor"]),
    help="Format of raw point files; guessed for each file if left out.",
)
most_frames_option = click.option(
    "--limit", type=click.IntRange(1), help="Use at most this many frames, spread evenly."
)
budget_option = click.option(
    "--budget", help="For --precision auto: 'sqnr>=30' (dB) or 'time<=1.1' (times all int8)."
)
outliers_option = click.option(
    "--outliers",
    default="drop",
    type=click.Choice(OUTLIERS),
    help="Leave out, or use, voxels and frames with feature values that nothing else comes near.",
)
quiet_option = click.option("--quiet", is_flag=True, help="No progress bar.")
