# SPDX-License-Identifier: Apache-2.0
"""How the commands of the benchmarks begin and end."""

from __future__ import annotations

import sys

import click

__all__ = ["run_command"]


def run_command(command: click.Command, name: str, arguments: list[str] | None) -> int:
    """Run `command`, which help calls `name`, and return its exit code: 1 after an error, 2 for wrong usage.

    `arguments` of None are those of the process.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        return int(command.main(arguments, prog_name=name, standalone_mode=False) or 0)
    except click.ClickException as error:
        error.show()
        return error.exit_code
