# SPDX-License-Identifier: Apache-2.0
"""The command `scn-fx`. One module per subcommand; heavy packages are imported when a command runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.util import find_spec

from scn_fx.errors import MissingPackageError

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `scn-fx` with `arguments` (default: the process's) and exit.

    The code is 0, 1 on errors, 2 on usage errors, 130 after Ctrl-C.
    """
    try:
        for package in ("click", "rich"):
            if find_spec(package) is None:
                error = MissingPackageError.of(package, "cli", "The command scn-fx")
                print(f"Error: {error}", file=sys.stderr)
                sys.exit(1)
        from scn_fx.cli.app import command
        from scn_fx.quant.console import show_every_character

        show_every_character()
    except KeyboardInterrupt:
        print("Error: Interrupted.", file=sys.stderr)
        sys.exit(130)
    command.main(args=None if arguments is None else list(arguments), prog_name="scn-fx")
