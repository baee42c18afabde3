# SPDX-License-Identifier: Apache-2.0
"""Pictures of bird's-eye-view maps as PNG or SVG: one result, or two and what lies between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
import numpy.typing as npt

from scn_fx.cli.bev import MEASURE, BevScale, bev_image, pooled
from scn_fx.cli.output import check_output
from scn_fx.errors import ArgumentError, CompareError
from scn_fx.files.atomic import write_file
from scn_fx.runtime.difference import align_sites

if TYPE_CHECKING:
    from scn_fx.cli.demo_detector import Detections
    from scn_fx.lidar import NetworkGrid, VoxelGrid
    from scn_fx.lidar.boxes import Boxes

__all__ = [
    "BevMaps",
    "Panel",
    "check_picture",
    "compared_panels",
    "map_extent",
    "picture_option",
    "save_panels",
    "save_picture",
]

Image = npt.NDArray[np.float32]
Extent = tuple[float, float, float, float]
"""x from and to, y from and to, in metres."""

picture_option = click.option(
    "--picture",
    type=click.Path(path_type=Path),
    help="Write a bird's-eye view, PNG or SVG by its name; needs matplotlib.",
)

_SUFFIXES = (".png", ".svg")
_MOST_CELLS = 1440
"""Cells a side that a picture shows one by one: more than it has pixels for."""

SURE = 0.3
"""Boxes of a lower score would hide the picture; AP counts them all."""


@dataclass(frozen=True, eq=False)
class Panel:
    """One image of a picture, with boxes over it."""

    name: str
    image: Image
    boxes: Boxes | None = None
    """In metres: the picture then needs an extent."""
    note: str = ""


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


def check_picture(path: Path | None) -> None:
    """Raise ArgumentError, before the work, for a picture that cannot be written."""
    if path is None:
        return
    if path.suffix not in _SUFFIXES:
        raise ArgumentError(f"--picture must end in {' or '.join(_SUFFIXES)}, got {str(path)!r}.")
    check_output(path, "--picture")


def compared_panels(reference: Any, result: Any, names: tuple[str, str], axes: str = "zyx") -> list[Panel]:
    """Panels of two results of one kind and what lies between them, cell by cell.

    Raises ArgumentError for results without a bird's-eye view, CompareError for two of different kinds,
    shapes or sites.
    """
    if isinstance(reference, tuple) != isinstance(result, tuple):
        raise CompareError("One of the two is sparse (features with indices), the other one is not.")
    if isinstance(reference, tuple):
        a, b = align_sites(reference, result, "the picture")
        sites = reference[1]
        between: Any = (a.astype(np.float32) - b.astype(np.float32), sites)
        values: tuple[Any, Any] = ((a, sites), (b, sites))
    else:
        if np.shape(reference) != np.shape(result):
            raise CompareError(
                f"A picture needs two maps of one shape, got {list(np.shape(reference))} and "
                f"{list(np.shape(result))}."
            )
        between = np.asarray(reference, np.float32) - np.asarray(result, np.float32)
        values = (reference, result)
    found = [Panel(name, bev_image(value, axes)) for name, value in zip(names, values, strict=True)]
    return [*found, Panel("|difference|", bev_image(between, axes))]


def map_extent(result: Any, network: NetworkGrid, grid: VoxelGrid | None = None) -> Extent | None:
    """Where the image of an output lies, in metres: a dense map spans the network's whole range.

    None where that is not known: no grid (`grid` serves where the network records none), or a sparse output,
    whose stride the file does not say.
    """
    known = network.grid or grid
    if known is None or isinstance(result, tuple) or network.axes != "zyx":
        return None
    return range_extent(known.point_range)


def range_extent(point_range: Sequence[float]) -> Extent:
    """x and y of a range (x, y, z, x, y, z)."""
    x0, y0, _, x1, y1, _ = point_range
    return float(x0), float(x1), float(y0), float(y1)


def save_picture(path: Path, maps: BevMaps) -> None:
    """Write the demo's picture: float, int8, difference, with boxes; needs matplotlib, no display."""
    panels = compared_panels(maps.reference, maps.result, ("float32", "INT8 engine"))
    found = maps.detections
    labels = None
    if found is not None:
        boxes = (found.reference, found.result, None)
        aps = (found.ap_float, found.ap_int8, None)
        panels = [
            Panel(
                panel.name,
                panel.image,
                None if mine is None else mine[mine.score >= SURE],
                "" if ap is None else f": AP {100 * ap:.2f} ({found.frames} scenes)",
            )
            for panel, mine, ap in zip(panels, boxes, aps, strict=True)
        ]
        labels = found.labels
    extent = None if maps.point_range is None else range_extent(maps.point_range)
    save_panels(path, panels, maps.title, extent, labels)


def save_panels(
    path: Path, panels: Sequence[Panel], title: str, extent: Extent | None = None, labels: Boxes | None = None
) -> None:
    """Write the panels side by side on the scale of the first, PNG or SVG by the file's name.

    The picture says its scale, and what each panel clips. `labels` are drawn, thin and white, where a panel
    has boxes. Needs matplotlib, no display.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

    scale = BevScale.of(panels[0].image)
    figure = Figure(figsize=(0.9 + 4.9 * len(panels), 6.2), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
    factor = 1
    for axis, panel in zip(axes, panels, strict=True):
        image, factor = pooled(panel.image, _MOST_CELLS)
        height, width = panel.image.shape
        shown = axis.imshow(
            np.ma.masked_equal(image, 0.0),
            origin="lower",
            extent=extent or (0.0, float(width), 0.0, float(height)),
            cmap="inferno",
            norm=PowerNorm(0.5, vmin=0.0, vmax=scale.top, clip=True),
            interpolation="nearest",
        )
        axis.set_facecolor("#10101a")
        axis.set_title(
            f"{panel.name}{panel.note}\n{scale.clipped(panel.image)}", fontsize=9, parse_math=False
        )
        if panel.boxes is not None:
            if labels is not None:
                _outline(axis, labels, "white", 0.6)
            _outline(axis, panel.boxes, "#00d0ff", 1.1)
        axis.set_xlabel("x (cells)" if extent is None else "x (m)")
    axes[0].set_ylabel("y (cells)" if extent is None else "y (m)")
    bar = figure.colorbar(shown, ax=list(axes), shrink=0.92, pad=0.01, extend="max")
    bar.set_label(MEASURE, fontsize=9)
    figure.suptitle(title, parse_math=False)  # a $ in a file's name is a $
    pooling = f"; a point is the largest of {factor} x {factor} cells" if factor > 1 else ""
    figure.supxlabel(scale.text.replace("; ", ";\n", 1 if len(panels) == 1 else 0) + pooling, fontsize=8)
    kind = path.suffix.removeprefix(".")
    with matplotlib.rc_context({"svg.hashsalt": "scn-fx"}):  # equal results give equal files
        write_file(path, lambda file: figure.savefig(file, dpi=110, format=kind, metadata=_metadata(kind)))


def _metadata(kind: str) -> dict[str, Any] | None:
    return {"Date": None} if kind == "svg" else None


def _outline(axis: Any, boxes: Boxes, colour: str, width: float) -> None:
    """The outlines of boxes from above, and a line from the middle to the front."""
    from matplotlib.collections import LineCollection

    corners = boxes.corners()
    closed = np.concatenate([corners, corners[:, :1]], 1)
    front = np.stack([boxes.centre[:, :2], corners[:, [0, 3]].mean(1)], 1)
    axis.add_collection(LineCollection([*closed, *front], colors=colour, linewidths=width), autolim=False)
