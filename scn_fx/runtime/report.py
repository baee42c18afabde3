# SPDX-License-Identifier: Apache-2.0
"""What a comparison found: as values, in words and in columns, for Python and for the command line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from scn_fx.errors import CompareError
from scn_fx.runtime.difference import ArrayDifference
from scn_fx.runtime.limits import Limits

__all__ = ["COLUMNS", "Comparison", "NodeComparison", "buckets_text", "cells", "verdict"]

COLUMNS = ("node", "op", "precision", "cosine", "SQNR dB", "max |d|", "mean |d|", "equal", "verdict")
"""Titles of the columns; the metrics among them are numbers."""

_NUMBERS = range(3, 8)


@dataclass(frozen=True)
class NodeComparison:
    """One ONNX node, or one output, over all frames."""

    name: str
    op_type: str
    """ONNX type of the node; "output" for an output."""
    precision: str
    """Precision in which the engine computes it ("int8", "fp16", "fp32"); empty for nodes without one."""
    difference: ArrayDifference | None
    """None if the two could not be compared; `failures` says why."""
    failures: tuple[str, ...] = ()
    """What is beyond the limits, in words."""

    @property
    def ok(self) -> bool:
        """Whether it is within the limits."""
        return not self.failures

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        found = {"name": self.name, "op_type": self.op_type, "precision": self.precision, "ok": self.ok}
        difference = self.difference.to_dict() if self.difference else None
        return {**found, "failures": list(self.failures), "difference": difference}


@dataclass(frozen=True)
class Comparison:
    """What `compare` found."""

    nodes: tuple[NodeComparison, ...]
    """One per ONNX node, in the file's order; empty if only outputs were compared."""
    outputs: tuple[NodeComparison, ...]
    limits: Limits
    frames: int
    sites: int
    """Input sites of all frames together."""
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether every node and every output is within the limits."""
        return all(entry.ok for entry in (*self.nodes, *self.outputs))

    @property
    def identical(self) -> bool:
        """Whether every bit of every node and output is the same."""
        entries = (*self.nodes, *self.outputs)
        return all(entry.difference is not None and entry.difference.identical for entry in entries)

    @property
    def first_failure(self) -> NodeComparison | None:
        """The first node beyond the limits, in the order of execution; outputs come last."""
        return next((entry for entry in (*self.nodes, *self.outputs) if not entry.ok), None)

    def check(self) -> Comparison:
        """Returns itself if `ok`.

        Raises:
            CompareError: names the first failing node and what is wrong with it.
        """
        first = self.first_failure
        if first is not None:
            entries = (*self.nodes, *self.outputs)
            failing = sum(not entry.ok for entry in entries)
            raise CompareError(
                f"{first.name} ({first.op_type}), first of {failing} failing entries of {len(entries)}: "
                f"{'; '.join(first.failures)} (limits: {self.limits.reason}). Later ones may only inherit it."
            )
        return self

    def __str__(self) -> str:
        return _text(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        limits = {f: getattr(self.limits, f) for f in ("identical", "cosine", "sqnr_db", "max_abs", "reason")}
        return {
            "ok": self.ok,
            "identical": self.identical,
            "frames": self.frames,
            "sites": self.sites,
            "seconds": self.seconds,
            "limits": limits,
            "nodes": [entry.to_dict() for entry in self.nodes],
            "outputs": [entry.to_dict() for entry in self.outputs],
        }


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


def _text(comparison: Comparison) -> str:
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
