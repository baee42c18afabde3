# SPDX-License-Identifier: Apache-2.0
"""The picture of a sensitivity report: one bar for each layer, the most sensitive at the top."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scn_fx.files.atomic import write_file
from scn_fx.operators.table import OPERATORS

if TYPE_CHECKING:
    from scn_fx.quant.layer_sensitivity import SensitivityReport

__all__ = ["save_plot"]

_QUANTISABLE = (spec.name for spec in OPERATORS.values() if spec.quantisable)
_COLOURS = dict(zip(_QUANTISABLE, ("#3b6ea5", "#d08a2e", "#4f8f5b", "#8a5aa8"), strict=False))


def save_plot(path: Path, report: SensitivityReport, title: str) -> None:
    """Write the bars (SQNR in dB of each layer alone) as a PNG; needs matplotlib, no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    rows = report.layers
    # A layer without any error has an infinite SQNR: its bar ends where the longest other one does.
    finite = [row.sqnr_db for row in rows if math.isfinite(row.sqnr_db)]
    longest = max(finite, default=1.0)
    figure = Figure(figsize=(9, 1.8 + 0.24 * len(rows)), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    lengths = [row.sqnr_db if math.isfinite(row.sqnr_db) else longest for row in rows]
    axis.barh(range(len(rows)), lengths, color=[_COLOURS[row.kind] for row in rows])
    axis.set_yticks(range(len(rows)), [row.name for row in rows], fontsize=8)
    axis.invert_yaxis()
    for position, row in enumerate(rows):
        axis.text(lengths[position], position, f" {row.sqnr_db:.1f}", va="center", fontsize=7)
    kinds = [kind for kind in _COLOURS if any(row.kind == kind for row in rows)]
    handles: list[Any] = [Patch(color=_COLOURS[kind], label=kind) for kind in kinds]
    if math.isfinite(report.together_sqnr_db):
        line = f"all together, {report.together_sqnr_db:.1f} dB"
        handles.append(axis.axvline(report.together_sqnr_db, color="#a03030", linestyle="--", label=line))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=8)
    axis.set_xlabel(f"SQNR at the outputs in dB, the layer alone in {report.precision} (short: sensitive)")
    axis.set_title(title)
    axis.margins(x=0.08, y=0.01)
    write_file(path, lambda file: figure.savefig(file, dpi=110, format="png"))
