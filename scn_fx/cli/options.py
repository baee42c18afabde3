# SPDX-License-Identifier: Apache-2.0
"""Options that several commands share.

`--json` is in output.py, those of checkpoints in scn_fx/quant/options.py, those of calibration in
scn_fx/quant/calibration_options.py.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from scn_fx.lidar import GRID_SYNTAX, VoxelGrid, parse_grid

__all__ = [
    "FILE",
    "Option",
    "device_option",
    "frames_option",
    "grid_option",
    "limit_option",
    "single_option",
    "small_option",
    "threads_option",
    "timing_device_option",
]

FILE = click.Path(path_type=Path)
"""A file or folder, which need not be there."""

Option = Callable[[Any], Any]
"""Decorates a command."""


def _grid(ctx: click.Context, option: click.Parameter, text: str | None) -> VoxelGrid | None:
    return None if text is None else parse_grid(text)


grid_option = click.option(
    "--grid",
    callback=_grid,
    metavar="GRID",
    help=f"Voxel grid of network and points: {GRID_SYNTAX}. Default: what the network or its file says.",
)
"""Gives a `VoxelGrid`, or None where it is left out; LidarError for a text that is no grid."""

frames_option = click.option(
    "--frames", required=True, type=FILE, help="Frames as for calibrate: files or package.module:callable."
)
timing_device_option = click.option(
    "--device", default="cpu", help="For --precision auto: where the engine is timed."
)
threads_option = click.option(
    "--threads", type=click.IntRange(1), help="CPU threads of the engine; all processors if left out."
)
single_option = click.option(
    "--precision", type=click.Choice(["fp32"]), help="Run everything in fp32, not in the file's precisions."
)
small_option = click.option(
    "--small", is_flag=True, help="A narrow network on a small grid, for a quick try."
)
device_option = click.option("--device", default="cpu", help="Where to run: cpu, cuda or cuda:N.")


def limit_option(default: int) -> Option:
    """At most so many frames, `default` if it is left out."""
    return click.option(
        "--limit", default=default, type=click.IntRange(1), help="Use at most this many frames."
    )
