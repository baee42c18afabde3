# SPDX-License-Identifier: Apache-2.0
"""A comparison in words and columns, for `str(comparison)` and for the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scn_fx.runtime.comparison import Comparison, NodeComparison
    from scn_fx.runtime.difference import ArrayDifference

__all__ = ["COLUMNS", "buckets_text", "cells", "comparison_text", "verdict"]

COLUMNS = ("node", "op", "precision", "cosine", "SQNR dB", "max |d|", "mean |d|", "equal", "verdict")
"""Titles of the columns; the metrics among them are numbers."""

_NUMBERS = range(3, 8)


def cells(entry: NodeComparison) -> tuple[str, ...]:
    """The columns of one node or output."""
    d = entry.difference
    if d is None:
        return (entry.name, entry.op_type, entry.precision, "", "", "", "", "", "FAILS")
    sqnr = "inf" if d.sum_error == 0.0 else f"{d.sqnr_db:.1f}"
    numbers = (f"{d.cosine:.7f}", sqnr, f"{d.max_abs:.4g}", f"{d.mean_abs:.4g}", f"{d.equal_share:.2%}")
    word = "FAILS" if not entry.ok else "same bits" if d.identical else "ok"
    return (entry.name, entry.op_type, entry.precision, *numbers, word)


def buckets_text(difference: ArrayDifference) -> str:
    """Shares of values by absolute difference."""
    return ", ".join(f"{name}: {share:.4%}" for name, share in difference.buckets.items())


def verdict(comparison: Comparison) -> str:
    """One line: passed or failed, where and why, on what."""
    what = f"{comparison.frames} frame(s), {comparison.sites:,} voxels, {comparison.seconds:.1f} s"
    first = comparison.first_failure
    if first is not None:
        return f"FAILED at {first.name} ({first.op_type}): {'; '.join(first.failures)} ({what})"
    same = "every bit is the same" if comparison.identical else "within the limits"
    return f"ok: {len(comparison.nodes)} nodes and {len(comparison.outputs)} output(s), {same} ({what})"


def comparison_text(comparison: Comparison) -> str:
    """A table in plain text, the limits, and the verdict."""
    rows = [COLUMNS, *(cells(entry) for entry in (*comparison.nodes, *comparison.outputs))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    lines = []
    for row in rows:
        padded = [
            text.rjust(width) if column in _NUMBERS else text.ljust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(padded).rstrip())
    return "\n".join([*lines, f"limits: {comparison.limits}", verdict(comparison)])
