# SPDX-License-Identifier: Apache-2.0
"""The layers of a report: the drawing of the graph, a row for each node, sensitivity, time by stage."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from scn_fx.bench.layers import convolves, group_of
from scn_fx.cli.report.measure import LayerReport, Measured
from scn_fx.cli.report.ranges import RangeUse
from scn_fx.cli.report.svg import GraphRow, bar, graph, histogram, percent, text
from scn_fx.operators import NO_ACTIVATION

if TYPE_CHECKING:
    from scn_fx.quant.layer_sensitivity import SensitivityReport

__all__ = [
    "FULL_BAR",
    "decibels",
    "drawing",
    "duration",
    "layer_rows",
    "precision_legend",
    "sensitivity_rows",
    "stage_rows",
]

_PRECISIONS = ("int8", "fp16", "fp32")
FULL_BAR = 60.0
"""dB of a full bar."""


def decibels(value: float) -> str:
    """An SQNR for people."""
    return "equal" if value == math.inf else "-" if value == -math.inf else f"{value:.1f}"


def duration(milliseconds: float) -> str:
    """Milliseconds for people, three digits or so whatever their size."""
    return (
        f"{milliseconds:.{1 if milliseconds >= 100 else 2}f}" if milliseconds >= 1 else f"{milliseconds:.2g}"
    )


def _with_unit(value: float) -> str:
    return f'{decibels(value)} <span class="unit">dB</span>' if math.isfinite(value) else decibels(value)


def what(layer: LayerReport) -> str:
    """Kind, kernel, stride and channels of a node."""
    facts = layer.facts
    if not facts["kind"]:
        return str(facts["op_type"])
    size = "×".join(str(n) for n in facts["kernel_size"] or [])  # noqa: RUF001
    strides = facts["stride"] or [1]
    stride = "" if set(strides) == {1} else f" /{max(strides)}"
    activation = facts["activation"]
    rest = f" + {activation}" if activation not in (None, "", NO_ACTIVATION) else ""
    return f"{facts['kind']} {size}{stride}, {facts['in_channels']} → {facts['out_channels']}{rest}"


def _short(layer: LayerReport) -> str:
    facts = layer.facts
    kind = f"{facts['in_channels']}→{facts['out_channels']}" if facts["kind"] else facts["op_type"]
    return f"{kind} {layer.precision}" if layer.precision else str(kind)


def drawing(layers: tuple[LayerReport, ...]) -> str:
    """The graph as a drawing."""
    place = {layer.name: number for number, layer in enumerate(layers)}
    rows = [
        GraphRow(
            layer.name, _short(layer), layer.precision, tuple(place[i] for i in layer.inputs if i in place)
        )
        for layer in layers
    ]
    return graph(rows)


def precision_legend(layers: tuple[LayerReport, ...]) -> str:
    """How many layers compute in what."""
    counts = {p: sum(layer.precision == p for layer in layers) for p in _PRECISIONS}
    rest = sum(layer.precision is None for layer in layers)
    parts = [f'<span><i class="{p}"></i>{p}: {n}</span>' for p, n in counts.items() if n]
    parts += [f'<span><i class="none"></i>no arithmetic of its own: {rest}</span>'] if rest else []
    return f'<div class="legend">{"".join(parts)}</div>'


def layer_rows(measured: Measured) -> str:
    """A row for each node, which opens: histograms with ranges, and numbers."""
    longest = max((layer.milliseconds or 0.0 for layer in measured.layers), default=0.0) or 1.0
    head = "".join(
        f"<span>{name}</span>" for name in ("layer", "what it is", "precision", "SQNR", "time", "clipped")
    )
    rows = "".join(_layer(layer, longest) for layer in measured.layers)
    return f'<div class="rows layers"><div class="row head">{head}</div>{rows}</div>'


def _layer(layer: LayerReport, longest: float) -> str:
    milliseconds = layer.milliseconds
    if milliseconds is not None:
        time = f'{duration(milliseconds)} <span class="unit">ms</span>{bar(milliseconds / longest)}'
    else:
        time = '<span class="unit">fused</span>' if layer.fused_into else ""
    beyond = ""
    if layer.ranges:
        worst = max(use.beyond_share for use in layer.ranges)
        beyond = f'{text(percent(worst))} <span class="unit">clipped</span>'
    sqnr = _with_unit(layer.difference.sqnr_db)
    precision = layer.precision
    named = f'<i class="{precision}"></i>{precision}' if precision else ""
    cells = (
        f'<span class="name">{text(layer.name)}</span><span class="what">{text(what(layer))}</span>'
        f'<span class="what">{named}</span><span class="number">{sqnr}</span>'
        f'<span class="number time">{time}</span><span class="number">{beyond}</span>'
    )
    return f'<details><summary class="row">{cells}</summary>{_inside(layer)}</details>'


def _inside(layer: LayerReport) -> str:
    difference, facts = layer.difference, layer.facts
    lines = [f"reads {', '.join(layer.inputs)}"]
    if layer.fused_into:
        lines.append(f"computed in the stage of {layer.fused_into}")
    if layer.precision:
        lines.append(f"computes in {layer.precision}, gives {facts['output_precision'] or 'fp16'}")
    if facts["weight_range_max"] is not None:
        low, high = facts["weight_range_min"], facts["weight_range_max"]
        lines.append(f"ranges of weights by output channel: {low:.4g} to {high:.4g}")
    lines.append(
        f"against float32: cosine {difference.cosine:.6f}, largest difference {difference.max_abs:.4g}, mean "
        f"{difference.mean_abs:.4g}, {difference.equal_share:.1%} of {difference.count:,} values equal"
    )
    lines += list(difference.faults)
    words = "".join(f"<p>{text(line)}</p>" for line in lines)
    charts = "".join(_chart(use, layer) for use in layer.ranges)
    return f'<div class="inside"><div>{words}</div>{charts}</div>'


def _chart(use: RangeUse, layer: LayerReport) -> str:
    seen = use.histogram
    values = seen.nonzero + seen.zeros
    zeros = seen.zeros / values if values else 0.0
    which = f"operand {use.operand}, " if len(layer.ranges) > 1 else ""
    idle = "" if layer.precision == "int8" else f" The layer computes in {layer.precision}: not in use."
    words = (
        f"{which}from {use.source}: values from {seen.smallest:.4g} to {seen.largest:.4g}, {zeros:.1%} of "
        f"{values:,} are zero. Of the others {percent(use.beyond_share)} lie beyond the range, "
        f"{percent(use.vanished_share)} round to zero.{idle}"
    )
    return f"<div>{histogram(use)}<p>{text(words)}</p></div>"


def sensitivity_rows(report: SensitivityReport, layers: tuple[LayerReport, ...]) -> str:
    """A bar for each layer, the most sensitive first; says which of them the file spares."""
    precisions = {layer.name: layer.precision for layer in layers}
    rows = []
    for row in report.layers:
        held = precisions.get(row.name)
        spared = f" ({held} in the file)" if held not in (None, report.precision) else ""
        rows.append(_bar_row(row.name + spared, _with_unit(row.sqnr_db), row.sqnr_db / FULL_BAR, "noise"))
    together = report.together_sqnr_db
    rows.append(_bar_row("all of these together", _with_unit(together), together / FULL_BAR, "maps"))
    left = "".join(f"<p>left out {text(name)}: {text(why)}</p>" for name, why in report.left_out.items())
    return f'<div class="rows bars">{"".join(rows)}</div>{left}'


def stage_rows(measured: Measured) -> str:
    """A bar for each stage of a frame, in the order of execution."""
    longest = max((seconds for _, seconds in measured.stages), default=0.0) or 1.0
    rows = []
    for stage, seconds in measured.stages:
        kind = "" if convolves(stage.kind) else "maps" if group_of(stage.kind) == "kernel maps" else "float"
        name = f"{stage.name} ({stage.kind.replace('_', ' ')})"
        rows.append(_bar_row(name, f"{duration(seconds * 1e3)} ms", seconds / longest, kind))
    return f'<div class="rows bars">{"".join(rows)}</div>'


def _bar_row(name: str, number: str, share: float, kind: str) -> str:
    return (
        f'<div class="row"><span class="name">{text(name)}</span><span class="number">{number}</span>'
        f"{bar(share, kind)}</div>"
    )
