# SPDX-License-Identifier: Apache-2.0
"""Bird's-eye-view images of results, and the one colour scale that images of one picture share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from scn_fx.errors import ArgumentError

__all__ = ["BevScale", "bev_image", "pooled"]

Image = npt.NDArray[np.float32]

MEASURE = "largest magnitude over channels and heights of each cell"
"""What the value of a cell is."""

_MOST_CELLS = 1 << 26
"""A grid may have any size; an image of more cells than this (8192 x 8192) is nothing to look at."""
_PERCENTILE = 99.5
"""The strongest few cells would leave the rest dark."""


@dataclass(frozen=True)
class BevScale:
    """Colours from 0 to `top`, by the square root of the value: it shows weak cells as well."""

    top: float

    @classmethod
    def of(cls, image: Image) -> BevScale:
        """The scale that suits an image; the others of the picture take it as it is."""
        occupied = image[image > 0]
        return cls(float(np.percentile(occupied, _PERCENTILE)) if occupied.size else 1.0)

    @property
    def text(self) -> str:
        """The scale in words."""
        return (
            f"colours by the square root, from 0 to {self.top:.4g} ({_PERCENTILE}th percentile of the first "
            "image's occupied cells); stronger cells are clipped"
        )

    def clipped(self, image: Image) -> str:
        """What of an image the scale does not show: "largest 7.31, 0.50% of 12,345 cells clipped"."""
        occupied = int(np.count_nonzero(image))
        beyond = int(np.count_nonzero(image > self.top))
        share = beyond / occupied if occupied else 0.0
        largest = float(image.max(initial=0.0))
        return f"largest {largest:.4g}, {share:.2%} of {occupied:,} occupied cells clipped"

    def levels(self, image: Image) -> Image:
        """Values of an image between 0 and 1 on this scale."""
        return np.sqrt(np.clip(image / self.top, 0.0, 1.0)).astype(np.float32)


def bev_image(result: Any, axes: str = "zyx", shape: tuple[int, int] | None = None) -> Image:
    """The image [H, W] of one output of an engine: see `MEASURE`; of a batch, the first sample.

    Args:
        result: a dense map [B, …, H, W] with at least one axis between, or (features [N, C], indices
            [N, 4] or [N, 3]).
        axes: order of the index columns behind the batch: "zyx", or "xyz".
        shape: H and W of a sparse result; None ends with its last occupied row and column.

    Raises ArgumentError for what has no bird's-eye view.
    """
    if not isinstance(result, tuple):
        dense = np.asarray(result)
        if dense.ndim < 4 or not dense.shape[0]:
            raise ArgumentError(
                f"A picture needs a dense map [B, C, H, W] or sparse features with indices, got an output of "
                f"shape {list(dense.shape)}. Leave the picture out, or export an output that has one."
            )
        first = np.abs(dense[0].astype(np.float32))
        return first.reshape(-1, *first.shape[-2:]).max(0, initial=0.0)
    features, indices = np.asarray(result[0]), np.asarray(result[1])
    if indices.ndim != 2 or indices.shape[1] not in (3, 4):
        raise ArgumentError(
            "A picture needs sites of two or three dimensions, got indices of shape "
            f"{list(indices.shape)}. A network of one dimension has no bird's-eye view: leave the picture "
            "out."
        )
    mine = indices[:, 0] == 0
    rows = indices[mine][:, 1:]
    y, x = (rows[:, 1], rows[:, 0]) if axes == "xyz" else (rows[:, -2], rows[:, -1])
    height, width = shape or (int(y.max(initial=0)) + 1, int(x.max(initial=0)) + 1)
    if height * width > _MOST_CELLS:
        raise ArgumentError(
            f"The sites of the output span {height:,} x {width:,} cells, more than a picture can show "
            f"({_MOST_CELLS:,}). Leave the picture out, or choose a coarser output."
        )
    image = np.zeros((height, width), np.float32)
    np.maximum.at(image, (y, x), np.abs(features[mine].astype(np.float32)).max(1, initial=0.0))
    return image


def pooled(image: Image, most: int) -> tuple[Image, int]:
    """The image with at most `most` cells a side, and how many cells a side became one (the largest)."""
    factor = max(1, -(-max(image.shape) // most))
    if factor == 1:
        return image, 1
    height, width = (-(-n // factor) * factor for n in image.shape)
    padded = np.zeros((height, width), np.float32)
    padded[: image.shape[0], : image.shape[1]] = image
    blocks = padded.reshape(height // factor, factor, width // factor, factor)
    return blocks.max((1, 3)), factor
