# SPDX-License-Identifier: Apache-2.0
"""How commands talk: tables and JSON on standard output, progress on standard error."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scn_fx.errors import ArgumentError, WriteError
from scn_fx.files.atomic import check_writable
from scn_fx.quant.console import one_line

if TYPE_CHECKING:
    from rich.table import Table

__all__ = [
    "check_output",
    "file_size",
    "json_option",
    "megabytes",
    "print_json",
    "print_table",
    "table",
    "working",
]

json_option = click.option("--json", "as_json", is_flag=True, help="Print plain data as JSON, no table.")


def print_json(data: Any) -> None:
    """Print `data` as JSON; infinite and NaN numbers become null, which every parser reads."""
    click.echo(json.dumps(_finite(data), indent=1, allow_nan=False))


def table(title: str, columns: Sequence[str], right: Sequence[str] = ()) -> Table:
    """An empty rich table; `right` names the columns that are aligned to the right."""
    from rich import box
    from rich.table import Table

    made = Table(title=title or None, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return made


def print_table(made: Table) -> None:
    """Print a table; in a pipe it is as wide as it needs, so that no value is cut or wrapped."""
    from rich.console import Console

    # Cells hold names out of files, which may look like rich's markup.
    plain: dict[str, Any] = {"highlight": False, "markup": False, "emoji": False}
    console = Console(**plain)
    if not console.is_terminal:
        console = Console(**plain, width=240)
    console.print(made)


@contextmanager
def working(text: str) -> Iterator[Callable[[str], None]]:
    """Shows a spinner and `text` on a terminal's standard error; yields a function that changes the text."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda change: None
        return
    from rich.text import Text

    with console.status(Text(text)) as status:
        yield lambda change: status.update(Text(one_line(change)))


def check_output(path: Path, option: str = "--output") -> None:
    """Raise ArgumentError if no file can be written at `path`: a folder, none around it, write-protected.

    Asked before the work is done whose result goes there; `option` is the one that named it.
    """
    try:
        check_writable(path)
    except WriteError as error:
        raise ArgumentError(f"{option} {error}") from error


def file_size(path: Path) -> int:
    """Size of a file in bytes."""
    return path.stat().st_size


def megabytes(size: int) -> str:
    """A size for people: "5.3 MB", "21 kB"."""
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size / 1e3:.0f} kB"


def _finite(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    if isinstance(data, float) and not math.isfinite(data):
        return None
    return data
