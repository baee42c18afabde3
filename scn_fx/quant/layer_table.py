# SPDX-License-Identifier: Apache-2.0
"""The layers of a calibration as a table of text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

__all__ = ["layer_table"]

_TITLES = ("layer", "precision", "output", "input range (largest value seen)")


def layer_table(rows: Sequence[dict[str, Any]], width: int | None = None) -> Iterator[str]:
    """The lines of a table of what `quant.script.report` says of layers.

    A line that is wider than `width` is parted between the name and what follows, and between the ranges of
    two inputs, never within a number.
    """
    cells = [_TITLES, *(_cells(row) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(3)]
    for name, precision, output, *ranges in cells:
        facts = f"{precision:<{widths[1]}}  {output:<{widths[2]}}  "
        start = f"{name:<{widths[0]}}  {facts}"
        whole = start + ", ".join(ranges)
        if width is None or len(whole) <= width:
            yield whole
            continue
        if len(start) + max(map(len, ranges), default=0) > width:
            yield name
            start = f"  {facts}"
        for number, text in enumerate(ranges):
            yield (start if number == 0 else " " * len(start)) + text


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    pairs = zip(row["ranges"], row["largest"], strict=True)
    ranges = (f"{amax:.6g} ({largest:.6g})" for amax, largest in pairs)
    return (row["name"], row["precision"], row["output_precision"], *ranges)
