# SPDX-License-Identifier: Apache-2.0
"""Options of the command line that several commands share. Needs click."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

__all__ = ["checkpoint_options"]

_Command = TypeVar("_Command", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--checkpoint", type=click.Path(path_type=Path), help="Weights to load into the model first."
    ),
    click.option(
        "--checkpoint-prefix",
        metavar="PREFIX",
        help="What precedes the model's names in the checkpoint, e.g. 'teacher.backbone.'; found if unique.",
    ),
    click.option(
        "--checkpoint-layout",
        type=click.Choice(["KRSC", "RSCK", "RSKC"]),
        help="Layout of its spconv weights: KRSC is spconv 2.x, RSCK 1.x; found from the shapes.",
    ),
)


def checkpoint_options(command: _Command) -> _Command:
    """Adds `--checkpoint`, `--checkpoint-prefix` and `--checkpoint-layout`, see `quant.models.load_graph`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
