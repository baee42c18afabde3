# SPDX-License-Identifier: Apache-2.0
"""Options of calibration, and those of them that other commands have too. Needs click."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from scn_fx.lidar import GRID_SYNTAX, POINT_FORMATS
from scn_fx.lidar.frame_paths import FRAME_SYNTAX
from scn_fx.quant import CONSUMERS, IMPROVEMENTS, METHODS, OUTLIERS, WEIGHTS
from scn_fx.quant.options import checkpoint_options

__all__ = [
    "budget_option",
    "calibration_options",
    "format_option",
    "model_option",
    "most_frames_option",
    "outliers_option",
    "quiet_option",
]

_Command = TypeVar("_Command", bound=Callable[..., Any])

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
quiet_option = click.option("--quiet", is_flag=True, help="No progress.")

_OPTIONS = (
    model_option,
    click.option(
        "--frames",
        required=True,
        type=click.Path(path_type=Path),
        help=f"A frame file, a folder with its subfolders, or a list of files: {FRAME_SYNTAX}. "
        "Or package.module:callable, which gives frames.",
    ),
    checkpoint_options,
    click.option("--grid", help=f"Voxel grid of model and points: {GRID_SYNTAX}. Default: the model's own."),
    format_option,
    most_frames_option,
    click.option("--method", default="mse", type=click.Choice(METHODS), help="How values give a range."),
    click.option(
        "--improve",
        multiple=True,
        type=click.Choice(IMPROVEMENTS),
        help="Fit weights (equalize, round) or biases as well, so that int8 loses less; repeatable.",
    ),
    click.option(
        "--percentile", default=99.99, help="For --method percentile, in percent: above 1, up to 100."
    ),
    click.option("--bins", "num_bins", default=2048, help="Least histogram bins of a value."),
    click.option(
        "--precision",
        "precisions",
        multiple=True,
        metavar="PATTERN=PRECISION",
        help="Override default precisions, e.g. 'conv1.*=fp16'; repeatable, the last match wins. 'auto' "
        "chooses for --budget.",
    ),
    budget_option,
    outliers_option,
    click.option(
        "--consumers",
        default="aware",
        type=click.Choice(CONSUMERS),
        help="Fit the ranges of an Add before a ReLU to what the ReLU leaves of its operands, or to all of "
        "them.",
    ),
    click.option(
        "--weights",
        type=click.Choice(WEIGHTS),
        help="Fit the ranges of weights to the layer's output on the frames, or take the largest magnitudes. "
        "Default: max for --method max, otherwise output.",
    ),
    click.option(
        "--device",
        default="cpu",
        type=click.Choice(["cpu", "cuda"]),
        help="Where the network runs, and with --precision auto the engine is timed.",
    ),
    click.option(
        "--resume", is_flag=True, help="Go on from what an interrupted run has kept beside the cache."
    ),
)


def calibration_options(command: _Command) -> _Command:
    """Adds everything that a calibration can be told, but the file that it writes."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
