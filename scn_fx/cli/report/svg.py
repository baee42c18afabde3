# SPDX-License-Identifier: Apache-2.0
"""Drawings of a report as inline SVG: histograms, bars, the graph."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scn_fx.cli.report.ranges import RangeUse

__all__ = ["GraphRow", "bar", "graph", "histogram", "percent", "text"]

_BINS = 64


def text(value: object) -> str:
    """A value as text of HTML or SVG: names come out of files, and may hold anything."""
    return html.escape("".join(c if c.isprintable() else repr(c)[1:-1] for c in str(value)))


def percent(share: float) -> str:
    """A share for people: what is not zero does not read as zero."""
    return "<0.01%" if 0 < share < 5e-5 else f"{share:.2%}"


def histogram(use: RangeUse) -> str:
    """Magnitudes that are not zero, counts on a logarithmic scale, with the range as a line."""
    width, height, base = 320.0, 110.0, 92.0
    seen = use.histogram
    top = max(seen.magnitude, use.amax) or 1.0
    counts = seen.magnitudes()
    middles = (np.arange(len(counts)) + 0.5) * seen.width
    place = np.minimum((middles / top * _BINS).astype(np.int64), _BINS - 1)
    bins = np.bincount(place, weights=counts, minlength=_BINS)
    tallest = math.log1p(float(bins.max()))
    step = width / _BINS
    parts = []
    for number, count in enumerate(bins):
        if count <= 0:
            continue
        tall = (base - 12) * math.log1p(float(count)) / tallest
        kind = "over" if (number + 0.5) * top / _BINS > use.amax else "in"
        parts.append(
            f'<rect class="{kind}" x="{number * step:.1f}" y="{base - tall:.1f}" width="{step - 0.6:.1f}" '
            f'height="{tall:.1f}"/>'
        )
    line = width * use.amax / top
    anchor = "end" if line > width / 2 else "start"
    shift = -3 if anchor == "end" else 3
    label = (
        f"Histogram of magnitudes up to {top:.4g}; the range is {use.amax:.4g}, "
        f"{text(percent(use.beyond_share))} of the non-zero values lie beyond it"
    )
    return (
        f'<svg class="histogram" viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{label}">'
        f"{''.join(parts)}"
        f'<line class="axis" x1="0" y1="{base}" x2="{width}" y2="{base}"/>'
        f'<line class="range" x1="{line:.1f}" y1="2" x2="{line:.1f}" y2="{base}"/>'
        f'<text x="{line + shift:.1f}" y="10" text-anchor="{anchor}">range {use.amax:.4g}</text>'
        f'<text x="0" y="{height - 5}">0</text>'
        f'<text x="{width}" y="{height - 5}" text-anchor="end">{top:.4g}</text></svg>'
    )


def bar(share: float, kind: str = "") -> str:
    """A bar that fills a share of its cell, 0 to 1."""
    filled = 100 * min(max(share, 0.0), 1.0)
    return f'<span class="bar {kind}"><span style="width:{filled:.1f}%"></span></span>'


@dataclass(frozen=True)
class GraphRow:
    """A node in the drawing of the graph."""

    name: str
    label: str
    """What stands at the right."""
    precision: str | None
    inputs: tuple[int, ...]
    """Rows that it reads."""


def graph(rows: Sequence[GraphRow]) -> str:
    """The nodes from top to bottom; what skips nodes runs in arcs at the left."""
    row_height, x, width, name_end = 20, 34, 372, 25
    edges, dots = [], []
    for number, row in enumerate(rows):
        y = number * row_height + row_height / 2
        for source in row.inputs:
            above = source * row_height + row_height / 2
            if number - source == 1:
                edges.append(f'<path d="M{x} {above}V{y}"/>')
            else:
                bow = min(x - 6, 8 + 4 * (number - source))
                edges.append(f'<path d="M{x} {above}C{x - bow} {above} {x - bow} {y} {x} {y}"/>')
        shown = row.name if len(row.name) <= name_end else f"…{row.name[1 - name_end :]}"
        dots.append(
            f'<g><title>{text(row.name)}</title><circle class="{row.precision or "none"}" cx="{x}" cy="{y}" '
            f'r="4.5"/><text x="{x + 12}" y="{y + 4}">{text(shown)}</text>'
            f'<text class="quiet" x="{width - 2}" y="{y + 4}" text-anchor="end">{text(row.label)}</text></g>'
        )
    height = len(rows) * row_height
    return (
        f'<svg class="graph" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="The graph, {len(rows)} nodes">'
        f'<g class="edges">{"".join(edges)}</g>{"".join(dots)}</svg>'
    )
