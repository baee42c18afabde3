# SPDX-License-Identifier: Apache-2.0
"""Options and errors that several commands share. Needs click."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, TypeVar

import click

from scn_fx.quant.console import one_line

__all__ = ["Interrupted", "Refusal", "checkpoint_options"]


class Refusal(click.ClickException):
    """Ends a command with one line, "Error: text", and exit code 1."""

    def __init__(self, text: str) -> None:
        super().__init__(one_line(text))

    def show(self, file: IO[Any] | None = None) -> None:
        """Print it. (click's own writes to another stream in an ASCII locale, which loses file names.)"""
        click.echo(f"Error: {self.format_message()}", file=file or sys.stderr)


class Interrupted(Refusal):
    """Ends a command that Ctrl-C has stopped, with the exit code 130 that shells give it."""

    exit_code = 130

    def __init__(self, advice: str = "") -> None:
        super().__init__(f"Interrupted. {advice}".rstrip())


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
    click.option(
        "--model-output",
        "outputs",
        multiple=True,
        metavar="PATH",
        help="Which output of the model to take, such as 0, spatial_features or 1,conv3; repeatable, for "
        "several outputs of one run. Default: the model's main output.",
    ),
    click.option(
        "--native",
        is_flag=True,
        help="Keep concatenations and BatchNorms as layers of the dialect scn_fx, for this engine alone.",
    ),
)


def checkpoint_options(command: _Command) -> _Command:
    """Adds the options of a model: its checkpoint, outputs and form, see `quant.models.load_graph`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
