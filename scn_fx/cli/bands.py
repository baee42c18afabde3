# SPDX-License-Identifier: Apache-2.0
"""Tables that are wider than the terminal: each row takes several lines, and no number is split."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rich.cells import cell_len

__all__ = ["Cells", "bands"]

_GAP = "  "
_INDENT = "  "


class Cells(NamedTuple):
    """A column: its title, its cells, and whether they are aligned to the right."""

    title: str
    cells: Sequence[str]
    right: bool = False

    @property
    def width(self) -> int:
        """Characters of its longest cell."""
        return max(map(cell_len, (self.title, *self.cells)))


def bands(columns: Sequence[Cells], width: int) -> Iterator[str]:
    """The lines of a table whose columns stand below each other as far as they do not fit beside each other.

    The first line of a row begins at the margin, the others are indented. A cell alone that is wider than
    `width` is wrapped, at spaces where it has some.
    """
    groups = _grouped(columns, width)
    yield from _row(groups, [column.title for column in columns], width)
    yield "─" * min(width, max(_group_width(group) for group in groups))
    for row in zip(*(column.cells for column in columns), strict=True):
        yield from _row(groups, row, width)


def _grouped(columns: Sequence[Cells], width: int) -> list[list[Cells]]:
    """The columns of each line."""
    groups: list[list[Cells]] = [[]]
    for column in columns:
        indent = len(_INDENT) if len(groups) > 1 else 0
        if groups[-1] and indent + _group_width([*groups[-1], column]) > width:
            groups.append([])
        groups[-1].append(column)
    return groups


def _group_width(group: Sequence[Cells]) -> int:
    return sum(column.width for column in group) + len(_GAP) * (len(group) - 1)


def _row(groups: Sequence[Sequence[Cells]], cells: Sequence[str], width: int) -> Iterator[str]:
    rest = iter(cells)
    for number, group in enumerate(groups):
        indent = _INDENT if number else ""
        parts = []
        for column in group:
            cell = next(rest)
            space = " " * (column.width - cell_len(cell))
            parts.append(space + cell if column.right else cell + space)
        line = indent + _GAP.join(parts).rstrip()
        if line.strip() or not number:
            if cell_len(line) <= width:
                yield line
            else:
                yield from textwrap.wrap(line, width, subsequent_indent=indent + _INDENT)
