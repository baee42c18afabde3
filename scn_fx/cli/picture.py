# SPDX-License-Identifier: Apache-2.0
"""The demo's picture: the bird's-eye-view map in float and int8, and what lies between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from scn_fx.files.atomic import write_file

if TYPE_CHECKING:
    from scn_fx.cli.demo_detector import Detections
    from scn_fx.lidar.boxes import Boxes

__all__ = ["BevMaps", "save_picture"]

Image = npt.NDArray[np.float32]


@dataclass(frozen=True)
class BevMaps:
    """Two dense maps [1, C, H, W] of one frame, the float one first."""

    reference: npt.NDArray[np.floating]
    result: npt.NDArray[np.floating]
    title: str
    point_range: Sequence[float] | None = None
    """(x, y, z, x, y, z) in metres, for the axes; None labels cells."""
    detections: Detections | None = None
    """Boxes to draw over the maps, which then need `point_range`."""

    def images(self) -> tuple[Image, Image, Image]:
        """Largest magnitude over the channels of each cell: float, int8, difference."""
        a, b = (np.asarray(m[0], np.float32) for m in (self.reference, self.result))
        return np.abs(a).max(0), np.abs(b).max(0), np.abs(a - b).max(0)


def save_picture(path: Path, maps: BevMaps) -> None:
    """Write the three images side by side as a PNG; needs matplotlib, no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

    first, second, difference = maps.images()
    occupied = first[first > 0]
    # The strongest few cells would leave the rest dark.
    top = float(np.percentile(occupied, 99.5)) if occupied.size else 1.0
    scale = PowerNorm(0.5, vmin=0.0, vmax=top)  # a square root shows weak cells as well
    figure = Figure(figsize=(15.5, 5.8), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 3, sharex=True, sharey=True)
    panels = (("float32", first), ("INT8 engine", second), ("|float32 - INT8|", difference))
    for axis, (name, image) in zip(axes, panels, strict=True):
        shown = axis.imshow(
            np.ma.masked_equal(image, 0.0),
            origin="lower",
            extent=_extent(maps, image),
            cmap="inferno",
            norm=scale,
            interpolation="nearest",
        )
        axis.set_facecolor("#10101a")
        axis.set_title(name + _draw_boxes(axis, name, maps.detections))
        unit = "cells" if maps.point_range is None else "m"
        axis.set_xlabel(f"x ({unit})")
    axes[0].set_ylabel("y (cells)" if maps.point_range is None else "y (m)")
    bar = figure.colorbar(shown, ax=list(axes), shrink=0.92, pad=0.01)
    bar.set_label("largest magnitude over channels")
    figure.suptitle(maps.title)
    write_file(path, lambda file: figure.savefig(file, dpi=110, format="png"))


_SURE = 0.3
"""Boxes of a lower score would hide the picture; AP counts them all."""


def _draw_boxes(axis: Any, name: str, found: Detections | None) -> str:
    """Labels (thin, white) and what was found; returns what the panel's title says of it."""
    if found is None:
        return ""
    boxes = {"float32": found.reference, "INT8 engine": found.result}.get(name)
    if boxes is None:
        return ""
    _outline(axis, found.labels, "white", 0.6)
    _outline(axis, boxes[boxes.score >= _SURE], "#00d0ff", 1.1)
    ap = found.ap_float if boxes is found.reference else found.ap_int8
    return f": AP {100 * ap:.2f} ({found.frames} scenes)"


def _outline(axis: Any, boxes: Boxes, colour: str, width: float) -> None:
    """The outlines of boxes from above, and a line from the middle to the front."""
    from matplotlib.collections import LineCollection

    corners = boxes.corners()
    closed = np.concatenate([corners, corners[:, :1]], 1)
    front = np.stack([boxes.centre[:, :2], corners[:, [0, 3]].mean(1)], 1)
    axis.add_collection(LineCollection([*closed, *front], colors=colour, linewidths=width), autolim=False)


def _extent(maps: BevMaps, image: Image) -> tuple[float, float, float, float]:
    if maps.point_range is None:
        return 0.0, float(image.shape[1]), 0.0, float(image.shape[0])
    x0, y0, _, x1, y1, _ = maps.point_range
    return x0, x1, y0, y1
