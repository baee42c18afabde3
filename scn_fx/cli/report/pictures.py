# SPDX-License-Identifier: Apache-2.0
"""The bird's-eye views of a report: PNG images in the page, with boxes, a length and the colour scale."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from scn_fx.cli.bev import MEASURE, BevScale, pooled
from scn_fx.cli.picture import SURE, Extent, Panel
from scn_fx.cli.report.svg import text
from scn_fx.lidar.boxes import Boxes

__all__ = ["pictures"]

_MOST_CELLS = 720
"""Cells a side: twice what a panel has on a desktop."""


def pictures(panels: Sequence[Panel], extent: Extent | None) -> str:
    """The panels as figures on the scale of the first; needs matplotlib for its colours."""
    scale = BevScale.of(panels[0].image)
    figures = "".join(_figure(panel, scale, extent) for panel in panels)
    where = "Axes: cells of the output" if extent is None else _where(extent)
    _, factor = pooled(panels[0].image, _MOST_CELLS)
    pooling = f" A point is the largest of {factor} × {factor} cells." if factor > 1 else ""  # noqa: RUF001
    boxes = (
        f" Blue lines: boxes with a score of at least {SURE}."
        if any(p.boxes is not None for p in panels)
        else ""
    )
    return (
        f'<div class="panels">{figures}</div>{_colour_bar(scale)}'
        f"<p>Shown: {MEASURE}; {text(scale.text)}. Dark: no value. {where}.{pooling}{boxes}</p>"
    )


def _where(extent: Extent) -> str:
    x0, x1, y0, y1 = extent
    return f"Axes: x from {x0:g} to {x1:g} m to the right, y from {y0:g} to {y1:g} m upwards"


def _figure(panel: Panel, scale: BevScale, extent: Extent | None) -> str:
    image, _ = pooled(panel.image, _MOST_CELLS)
    height, width = image.shape
    parts = [
        f'<image href="{_png(image, scale)}" width="{width}" height="{height}" preserveAspectRatio="none"/>'
    ]
    if extent is not None:
        parts.append(_length(extent, width, height))
        if panel.boxes is not None:
            parts.append(_boxes(panel.boxes, extent, width, height))
    count = "" if panel.boxes is None else f"<br>{len(panel.boxes)} boxes"
    return (
        f'<figure><svg class="bev" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="Bird\'s-eye view: {text(panel.name)}">{"".join(parts)}</svg>'
        f"<figcaption><b>{text(panel.name)}</b><br>{text(scale.clipped(panel.image))}{count}</figcaption></figure>"
    )


def _png(image: npt.NDArray[np.float32], scale: BevScale) -> str:
    """The image as a data URL, y upwards; cells without a value transparent."""
    from matplotlib import colormaps
    from matplotlib.image import imsave

    colours = colormaps["inferno"](scale.levels(image), bytes=True)
    colours[image == 0, 3] = 0
    file = io.BytesIO()
    imsave(file, np.ascontiguousarray(colours[::-1]), format="png")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _length(extent: Extent, width: int, height: int) -> str:
    """A line of a round length in metres, at the lower left."""
    metres = extent[1] - extent[0]
    decade = 10.0 ** math.floor(math.log10(metres / 4))
    round_length = max(step * decade for step in (1, 2, 5) if step * decade <= metres / 4)
    x, y, size = width * 0.04, height * 0.95, width * round_length / metres
    return (
        f'<g class="length"><path stroke-width="{width / 140:.2f}" d="M{x:.1f} {y:.1f}h{size:.1f}"/>'
        f'<text x="{x:.1f}" y="{y - height * 0.015:.1f}" font-size="{width / 22:.1f}">{round_length:g} m'
        "</text></g>"
    )


def _boxes(boxes: Boxes, extent: Extent, width: int, height: int) -> str:
    """The outlines of boxes from above, and a line from the middle to the front."""
    x0, x1, y0, y1 = extent
    corners = boxes.corners()
    front = np.stack([boxes.centre[:, :2], corners[:, [0, 3]].mean(1)], 1)

    def path(points: npt.NDArray[np.float32], end: str) -> str:
        x = (points[:, 0] - x0) / (x1 - x0) * width
        y = (y1 - points[:, 1]) / (y1 - y0) * height
        return "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(x, y, strict=True)) + end

    lines = [path(p, "Z") for p in corners] + [path(p, "") for p in front]
    return f'<path class="boxes" stroke-width="{width / 260:.2f}" d="{"".join(lines)}"/>'


def _colour_bar(scale: BevScale) -> str:
    steps = np.linspace(1 / 256, 1.0, 256)[None]
    ramp = (steps**2 * scale.top).astype(np.float32)
    return (
        f'<div class="scale"><img src="{_png(ramp, scale)}" alt="Colours from 0 to {scale.top:.4g}">'
        f"<span>0</span><span>{scale.top / 4:.3g}</span><span>{scale.top:.3g} and more</span></div>"
    )
