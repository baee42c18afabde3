# SPDX-License-Identifier: Apache-2.0
"""Draws docs/images/speed.svg from README.md's table of speed: `python -m docs.scripts.draw_speed`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PICTURE = ROOT / "docs" / "images" / "speed.svg"

_COLOURS = {"spconv": "#8a8f98", "fp32": "#7fb8d6", "fp16": "#3f8fc0", "int8": "#0b5f94"}


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    machine: str
    name: str
    """What ran, as "scn-fx int8"."""
    milliseconds: str
    """As the table writes it."""
    ratio: str
    """How many times faster than the first row of the machine; empty for that one."""


def read_rows(text: str) -> list[Row]:
    """The rows of the table; raises ValueError if the section holds none."""
    section = re.search(r"^## Speed\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    found = re.findall(
        r"^\| *([^|]*?) *\| ([^|]+?) \| ([\d.]+) \| *(\S*) *\|$", section[1] if section else "", re.MULTILINE
    )
    if not found:
        raise ValueError("README.md: expected a table of milliseconds under '## Speed', got none.")
    rows, machine = [], ""
    for first, name, milliseconds, ratio in found:
        machine = first or machine
        rows.append(Row(machine, name, milliseconds, ratio))
    return rows


def draw(rows: list[Row], path: Path) -> None:
    """Bars for each machine on an axis of its own, which begins at 0; the same bytes for the same rows."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    machines = list(dict.fromkeys(row.machine for row in rows))
    parts = [[row for row in rows if row.machine == machine] for machine in machines]
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "scn-fx", "font.size": 11}):
        height = 0.36 * len(rows) + 0.62 * len(parts)
        figure = Figure(figsize=(7.6, height), layout="constrained", facecolor="white")
        FigureCanvasSVG(figure)
        axes = figure.subplots(
            len(parts), 1, gridspec_kw={"height_ratios": [len(part) + 0.7 for part in parts]}
        )
        for axis, machine, part in zip(axes, machines, parts, strict=True):
            values = [float(row.milliseconds) for row in part]
            kinds = ["spconv" if row.name.startswith("spconv") else row.name.split()[-1] for row in part]
            axis.barh(range(len(part)), values, color=[_COLOURS[kind] for kind in kinds], height=0.72)
            for y, row in enumerate(part):
                at = {"va": "center", "textcoords": "offset points"}
                axis.annotate(f"{row.milliseconds} ms", (float(row.milliseconds), y), (6, 0), **at)
                if row.ratio:
                    axis.annotate(row.ratio, (float(row.milliseconds), y), (78, 0), fontweight="bold", **at)
            axis.set_yticks(range(len(part)), [row.name for row in part])
            axis.invert_yaxis()
            axis.set_xlim(0, max(values) * 1.22)
            axis.set_title(machine, loc="left", fontsize=11, fontweight="bold", pad=8)
            axis.set_xticks([])
            axis.spines[["top", "right", "bottom"]].set_visible(False)
            axis.tick_params(length=0)
        figure.savefig(path, format="svg", metadata={"Date": None})


def main() -> None:
    """Reads the README of this tree and writes the picture."""
    draw(read_rows((ROOT / "README.md").read_text(encoding="utf-8")), PICTURE)


if __name__ == "__main__":
    main()
