# SPDX-License-Identifier: Apache-2.0
"""The last line of a command: what comes next, with the options that name the same model."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from shutil import which

import click
from click.core import ParameterSource

from scn_fx.quant.settings_option import settings_path

__all__ = ["MODEL_OPTIONS", "from_settings", "given", "next_line"]

MODEL_OPTIONS = (
    "model", "checkpoint", "checkpoint_prefix", "checkpoint_layout", "outputs", "native", "grid"
)  # fmt: skip
"""Parameters that name a model, in every command that takes one."""


def given(ctx: click.Context, name: str) -> bool:
    """Whether the user has written the option himself, rather than a settings file or nobody."""
    return ctx.get_parameter_source(name) == ParameterSource.COMMANDLINE


def from_settings(ctx: click.Context, name: str) -> bool:
    """Whether a settings file says the option, so that the next command that reads the file has it too."""
    return ctx.get_parameter_source(name) == ParameterSource.DEFAULT_MAP


def next_line(
    ctx: click.Context, command: str, *words: object, names: tuple[str, ...] = MODEL_OPTIONS
) -> str:
    """A line "next: scn-fx COMMAND WORDS ...", with the settings file and the options `names` as given."""
    parts = [command, *map(str, words)]
    settings = settings_path(ctx)
    if settings is not None:
        parts += ["--settings", str(settings)]
    for option in ctx.command.params:
        if isinstance(option, click.Option) and option.name in names and given(ctx, option.name):
            parts += _spelled(option, ctx.params[option.name])
    return f"next: {_program()} {shlex.join(parts)}"


def _program() -> str:
    """As the user has called scn-fx, where it is not on PATH (`make demo` runs .venv/bin/scn-fx)."""
    name = "scn-fx"
    called = Path(sys.argv[0])
    return shlex.quote(str(called)) if called.name == name and which(name) is None else name


def _spelled(option: click.Option, value: object) -> list[str]:
    name = option.opts[0]
    if option.is_flag:
        return [name]
    values = value if isinstance(value, tuple) else (value,)
    return [word for each in values for word in (name, str(each))]
