# SPDX-License-Identifier: Apache-2.0
"""Draws the gallery from the demo's ONNX file: `python -m docs.scripts.draw_demo demo_output/scn.onnx`.

The frame is the demo's: a simulated LiDAR in a simulated street, so that the pictures belong to this project.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import LogNorm, Normalize, PowerNorm
from matplotlib.figure import Figure

from scn_fx import Engine
from scn_fx.detection import LabelledFrame, detect, held_out_frames, trained_detector
from scn_fx.lidar import CENTERPOINT_GRID
from scn_fx.lidar.boxes import MIN_POINTS, Boxes

IMAGES = Path(__file__).parents[1] / "images"
LARGEST = 150_000
"""Bytes of a picture: they are part of every clone."""

_SURE = 0.3  # boxes of a lower score would hide the picture
_BACK = "#10101a"
_EXTENT = (-54.0, 54.0, -54.0, 54.0)

Image = npt.NDArray[np.float32]


def _save(figure: Figure, name: str) -> None:
    """A PNG of 128 colours; raises ValueError if it is too large to commit."""
    from PIL import Image as Pictures

    drawn = BytesIO()
    figure.savefig(drawn, dpi=110, format="png")
    small = Pictures.open(drawn).convert("RGB").quantize(128, dither=Pictures.Dither.NONE)
    path = IMAGES / name
    small.save(path, optimize=True)
    size = path.stat().st_size
    if size > LARGEST:
        raise ValueError(f"{path}: expected at most {LARGEST} bytes, got {size}. Draw it smaller.")
    print(f"saved {path.name} ({size / 1000:.0f} kB)")


def _panel(axis: Axes, image: Image, norm: Normalize, title: str, cmap: str = "inferno") -> Any:
    shown = axis.imshow(
        np.ma.masked_equal(image, 0.0),
        origin="lower",
        extent=_EXTENT,
        cmap=cmap,
        norm=norm,
        interpolation="nearest",
    )
    axis.set_facecolor(_BACK)
    axis.set_title(title, fontsize=11)
    axis.set_xlabel("x (m)")
    axis.set_ylim(-30, 45)  # there is next to nothing beyond
    return shown


def _outline(axis: Axes, boxes: Boxes, colour: str, width: float) -> None:
    corners = boxes.corners()
    front = np.stack([boxes.centre[:, :2], corners[:, [0, 3]].mean(1)], 1)
    lines = [*np.concatenate([corners, corners[:, :1]], 1), *front]
    axis.add_collection(LineCollection(lines, colors=colour, linewidths=width), autolim=False)


def _counts(frame: LabelledFrame) -> Image:
    """Occupied voxels over each cell of 8 x 8 columns, the cells of the map."""
    cells = np.zeros((180, 180), np.float32)
    _, _, y, x = frame.indices.numpy().T
    np.add.at(cells, (y // 8, x // 8), 1.0)
    return cells


def draw(onnx: Path) -> None:
    """All pictures, from the file that the demo has written."""
    detector = trained_detector()
    frame = next(iter(held_out_frames(1)))
    features, indices = frame.features.numpy(), frame.indices.numpy()
    engines = {"float32": Engine(onnx, precision="fp32"), "INT8": Engine(onnx)}
    maps = {name: np.asarray(engine(features, indices)[0], np.float32) for name, engine in engines.items()}
    boxes = {name: detect(engine, detector.head, features, indices) for name, engine in engines.items()}
    labels = frame.boxes[frame.boxes.points >= MIN_POINTS]
    strongest = {name: np.abs(values).max(0) for name, values in maps.items()}
    difference = np.abs(maps["float32"] - maps["INT8"]).max(0)
    top = float(np.percentile(strongest["float32"][strongest["float32"] > 0], 99.5))
    scale = PowerNorm(0.5, vmin=0.0, vmax=top, clip=True)

    figure = Figure(figsize=(6.2, 4.1), layout="constrained", facecolor="white")
    axis = figure.subplots()
    counts = _counts(frame)
    shown = _panel(axis, counts, LogNorm(1, counts.max()), f"{len(indices):,} voxels", "viridis")
    figure.colorbar(shown, ax=axis, label="voxels of a cell of 0.6 m (logarithmic)")
    _save(figure, "gallery-voxels.png")

    for name, image in strongest.items():
        figure = Figure(figsize=(6.2, 4.1), layout="constrained", facecolor="white")
        axis = figure.subplots()
        shown = _panel(axis, image, scale, f"{name}: strongest channel of each cell")
        figure.colorbar(
            shown, ax=axis, label=f"magnitude, square-root scale, clipped at {top:.1f}", extend="max"
        )
        _save(figure, f"gallery-{name.lower()}.png")

    figure = Figure(figsize=(6.2, 4.1), layout="constrained", facecolor="white")
    axis = figure.subplots()
    largest = float(difference.max())
    shown = _panel(axis, difference, Normalize(0.0, largest), "|float32 - INT8|, largest of the channels")
    figure.colorbar(shown, ax=axis, label=f"magnitude, linear, a scale of its own up to {largest:.1f}")
    _save(figure, "gallery-difference.png")

    figure = Figure(figsize=(11.0, 4.2), layout="constrained", facecolor="white")
    for axis, name in zip(figure.subplots(1, 2, sharey=True), strongest, strict=True):
        sure = boxes[name][boxes[name].score >= _SURE]
        _panel(axis, strongest[name], scale, f"{name}: {len(sure)} boxes of score {_SURE} and more")
        _outline(axis, labels, "white", 0.6)
        _outline(axis, sure, "#00d0ff", 1.2)
    figure.get_axes()[0].set_ylabel("y (m)")
    _save(figure, "demo.png")


def main(arguments: Sequence[str]) -> None:
    """Takes the path of the demo's file."""
    if len(arguments) != 1:
        sys.exit("usage: python -m docs.scripts.draw_demo demo_output/scn.onnx (`make demo` writes it)")
    draw(Path(arguments[0]))


if __name__ == "__main__":
    assert CENTERPOINT_GRID.point_range[0] == _EXTENT[0]
    main(sys.argv[1:])
