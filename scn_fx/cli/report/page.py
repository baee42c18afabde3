# SPDX-License-Identifier: Apache-2.0
"""The page of a report: one HTML file with everything in it, no script, nothing to fetch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scn_fx.cli.picture import Extent, Panel
from scn_fx.cli.report.layers import (
    FULL_BAR,
    decibels,
    drawing,
    duration,
    layer_rows,
    precision_legend,
    sensitivity_rows,
    stage_rows,
)
from scn_fx.cli.report.measure import Measured
from scn_fx.cli.report.pictures import pictures
from scn_fx.cli.report.style import STYLE
from scn_fx.cli.report.svg import percent, text

if TYPE_CHECKING:
    from scn_fx.quant.layer_sensitivity import SensitivityReport

__all__ = ["Contents", "page"]


@dataclass(frozen=True, eq=False)
class Contents:
    """All that a page shows."""

    file: str
    """Its path."""
    size: str
    frames: tuple[str, ...]
    """Their names."""
    engine: str
    """Where it ran, in words."""
    measured: Measured
    sensitivity: SensitivityReport | str
    """What was found, or why nothing was looked for."""
    panels: list[Panel] | str
    """Pictures of the first output on the first frame, or why there are none."""
    extent: Extent | None
    environment: dict[str, Any]


def page(contents: Contents) -> str:
    """The HTML of a report."""
    measured = contents.measured
    parts = [
        f"<h1>{text(Path(contents.file).name)}</h1><p>{text(_subtitle(contents))}</p>",
        _section("At a glance", _cards(measured)),
        _section("Bird's-eye view", _pictures(contents)),
        '<div class="columns">'
        + _section(
            "Graph",
            precision_legend(measured.layers) + drawing(measured.layers),
            "From top to bottom as in the file; colours: precision. Arcs: values that later layers read too.",
        )
        + _section("Sensitivity", *_sensitivity(contents))
        + "</div>",
        _section("Layers", layer_rows(measured), _LAYERS),
        _section("Time", stage_rows(measured), _time(contents)),
        _section("File and machine", _facts(contents)),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        # A page out of names that a file chose must fetch and run nothing, whatever they hold.
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">"
        f"<title>{text(Path(contents.file).name)}: scn-fx report</title><style>{STYLE}</style></head>"
        f"<body><main>{''.join(parts)}</main></body></html>\n"
    )


_LAYERS = (
    "Open a layer for its ranges against the values in float32. SQNR: the node's values in the file's "
    "precisions against the same node in float32, with all that the layers before it have lost; the float32 "
    "run is the same file, every layer in float32. Clipped: share of the input's non-zero values beyond the "
    "range (the worse operand). The range of an Add in front of a ReLU fits what the ReLU leaves, so that "
    "values it removes may lie beyond. Histograms: magnitudes of the values that are not zero, counts on a "
    "logarithmic scale, red beyond the range."
)


def _section(title: str, body: str, note: str = "") -> str:
    return f"<section><h2>{text(title)}</h2>{f'<p>{text(note)}</p>' if note else ''}{body}</section>"


def _subtitle(contents: Contents) -> str:
    names = list(contents.frames)
    shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
    voxels = sum(contents.measured.voxels) / len(contents.measured.voxels)
    return f"{contents.size}; {len(names)} frame(s): {shown}; {voxels:,.0f} voxels on average"


def _cards(measured: Measured) -> str:
    cards = []
    for name, difference in measured.outputs.items():
        sqnr = decibels(difference.sqnr_db)
        number = sqnr if sqnr == "equal" else f"{sqnr} dB"
        cards.append((number, f"SQNR of {name} against float32, cosine {difference.cosine:.5f}"))
    total, in_float = measured.totals["total"], measured.float_totals["total"]
    cards.append((f"{duration(total)} ms", f"stages of a frame; {duration(in_float)} ms in float32"))
    int8 = sum(layer.precision == "int8" for layer in measured.layers)
    computing = sum(layer.precision is not None for layer in measured.layers)
    cards.append((f"{int8} of {computing}", "layers with arithmetic compute in int8"))
    ranged = [layer for layer in measured.layers if layer.precision == "int8" and layer.ranges]
    if ranged:
        worst = max(ranged, key=lambda layer: max(use.beyond_share for use in layer.ranges))
        share = max(use.beyond_share for use in worst.ranges)
        cards.append((percent(share), f"of a layer's input clipped at most, at {worst.name}"))
    return (
        '<div class="cards">'
        + "".join(f"<div><b>{text(number)}</b><span>{text(words)}</span></div>" for number, words in cards)
        + "</div>"
    )


def _pictures(contents: Contents) -> str:
    if isinstance(contents.panels, str):
        return f"<p>{text(contents.panels)}</p>"
    shown = f"Output '{next(iter(contents.measured.outputs))}' of frame {contents.frames[0]}."
    return f"<p>{text(shown)}</p>" + pictures(contents.panels, contents.extent)


def _sensitivity(contents: Contents) -> tuple[str, str]:
    found = contents.sensitivity
    if isinstance(found, str):
        return f"<p>{text(found)}</p>", ""
    return sensitivity_rows(found, contents.measured.layers), (
        f"SQNR at the outputs with one layer in {found.precision} and all others in float32, on "
        f"{found.frames} frame(s): short bars are sensitive. A full bar: {FULL_BAR:g} dB."
    )


def _time(contents: Contents) -> str:
    measured = contents.measured
    groups = ", ".join(f"{name} {duration(ms)} ms" for name, ms in measured.totals.items())
    return (
        f"{contents.engine}; medians of {measured.repeats} profiled runs of the first frame, in the order of "
        f"execution. {groups}. An Add that a convolution takes in has no stage of its own."
    )


def _facts(contents: Contents) -> str:
    found = contents.environment
    rows = [("file", contents.file), ("engine", contents.engine)]
    rows += [(key.replace("_", " "), str(found[key])) for key in ("scn_fx", "python", "platform", "cpu")]
    rows += [("processors", str(found["processors"])), ("instruction sets", found["instruction_sets"])]
    packages = [f"{e['package']} {e['version']}" for e in found["packages"] if e["version"]]
    rows.append(("packages", ", ".join(packages)))
    rows += sorted(contents.measured.metadata.items())
    cells = "".join(f"<tr><td>{text(name)}</td><td>{text(value)}</td></tr>" for name, value in rows)
    return f"<table>{cells}</table>"
