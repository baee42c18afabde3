# SPDX-License-Identifier: Apache-2.0
"""How commands talk: tables and JSON on standard output, progress on standard error."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scn_fx.errors import ArgumentError, WriteError
from scn_fx.files.atomic import check_writable
from scn_fx.quant.console import output_width
from scn_fx.quant.status import working

_UNLIMITED = 10_000
"""Columns of a pipe: as many as the widest table needs."""

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
    """Print a table; in a pipe it is as wide as it needs, unless the variable COLUMNS says otherwise.

    One that is wider than the terminal takes several lines for each row (see `scn_fx.cli.bands`).
    """
    from rich.console import Console
    from rich.measure import Measurement

    # Cells hold names out of files, which may look like rich's markup.
    plain: dict[str, Any] = {"highlight": False, "markup": False, "emoji": False}
    width = output_width()
    console = Console(**plain, width=_UNLIMITED if width is None else width)
    needed = Measurement.get(console, console.options.update(max_width=_UNLIMITED), made).maximum
    if needed <= console.width or len(made.columns) < 3:  # of two columns the second is a text, which wraps
        console.print(made)
        return
    from scn_fx.cli.bands import Cells, bands

    columns = [
        Cells(str(column.header), [str(cell) for cell in column.cells], column.justify == "right")
        for column in made.columns
    ]
    # not by click, which writes to an ASCII terminal what is not ASCII as question marks
    if made.title:
        print(made.title)
    for line in bands(columns, console.width):
        print(line)
    print()


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
