# SPDX-License-Identifier: Apache-2.0
"""The network and the frames of a soak: a small network that uses every kind of layer, frames of any size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scn_fx.errors import NonFiniteError, ScnError, SiteError
from tests.oracle.builder import Piece, add, build_onnx, convolution, node
from tests.oracle.geometry import output_shape

__all__ = ["BATCH", "GRID", "MOST_SITES", "SoakFrame", "draw_frame", "largest_frame", "soak_onnx"]

GRID = (9, 24, 24)
BATCH = 2
CHANNELS = 5
MOST_SITES = 2000
BAD_SHARE = 0.03

Ints = npt.NDArray[np.int32]


@dataclass(frozen=True)
class SoakFrame:
    """Features float16 [N, C] and indices int32 [N, 4]; `error` is what the engine must raise."""

    features: npt.NDArray[np.float16]
    indices: Ints
    error: type[ScnError] | None = None
    kind: str = "good"


def soak_onnx(int8: bool) -> bytes:
    """Submanifold, strided and inverse layers, a residual Add, ReLU, a dense map and sparse outputs.

    With `int8`, all layers but the first, whose order of summation is fixed, run in int8: every result has
    one right answer to the bit.
    """
    rng = np.random.default_rng(11)
    stride, padding = (2, 2, 2), (1, 1, 1)
    small = output_shape(GRID, (3, 3, 3), stride, padding, (1, 1, 1))
    ranges = {"precision": "int8", "output_precision": "int8", "input_range": 4.0} if int8 else {}
    summed = {"precision": "int8", "output_precision": "fp16", "ranges": (4.0, 4.0)} if int8 else {}

    def layer(name: str, x: str, out: int, channels: int, first: bool = False, **more: object) -> Piece:
        weight = rng.normal(0, (27 * channels / 4) ** -0.5, (out, 3, 3, 3, channels)).astype(np.float16)
        peak = np.abs(weight.astype(np.float32)).max(axis=(1, 2, 3, 4)).tolist()
        given = {} if first or not int8 else {**ranges, "weight_ranges": peak}
        return convolution(name, x, name, weight, padding=padding, activation="ReLU", **given, **more)  # type: ignore[arg-type]

    same = {"input_shape": GRID, "output_shape": GRID, "subm": True, "rulebook": "fine"}
    coarse = {"input_shape": small, "output_shape": small, "subm": True, "rulebook": "coarse"}
    down = {"input_shape": GRID, "output_shape": small, "stride": stride, "rulebook": "down"}
    up = {"input_shape": small, "output_shape": GRID, "stride": stride, "rulebook": "down", "inverse": True}
    dense = {"format": "zyx", "input_spatial_shape": small, "output_shape": (BATCH, 24, *small)}
    return build_onnx(
        layer("first", "features", 16, CHANNELS, first=True, **same),
        layer("second", "first", 16, 16, **same),
        add("sum", "second", "first", "sum", **summed),  # type: ignore[arg-type]
        layer("down", "sum", 24, 16, **down),
        layer("third", "down", 24, 24, **coarse),
        layer("up", "third", 8, 24, **up),
        node("ScatterDense", "dense", ["third"], "map", **dense),
        outputs=["map", "up"],
    )


def largest_frame(rng: np.random.Generator) -> SoakFrame:
    """As many sites as a frame may have: memory has grown when it has run."""
    return _frame(rng, MOST_SITES)


def draw_frame(rng: np.random.Generator) -> SoakFrame:
    """A random frame: none to thousands of sites, small ones more often; a few of them are wrong."""
    frame = _frame(rng, int(MOST_SITES * rng.random() ** 3))
    if not len(frame.features) or rng.random() >= BAD_SHARE:
        return frame
    features, indices = frame.features.copy(), frame.indices.copy()
    row = int(rng.integers(len(features)))
    kind = int(rng.integers(5))
    if kind == 0:
        features[row, rng.integers(CHANNELS)] = rng.choice([np.nan, np.inf, -np.inf])
        return SoakFrame(features, indices, NonFiniteError, "not finite")
    if kind == 1:
        indices[row, 1 + rng.integers(3)] = rng.choice([-1, 2**31 - 1, -(2**31)])
        return SoakFrame(features, indices, SiteError, "outside")
    if kind == 2:
        indices[row, 0] = rng.choice([-1, BATCH, 2**31 - 1])
        return SoakFrame(features, indices, SiteError, "batch")
    if kind == 3:
        return SoakFrame(features[:, 1:], indices, SiteError, "channels")
    features, indices = np.concatenate([features, features[:1]]), np.concatenate([indices, indices[:1]])
    return SoakFrame(features, indices, SiteError, "duplicate")


def _frame(rng: np.random.Generator, count: int) -> SoakFrame:
    cells = BATCH * int(np.prod(GRID))
    keys = rng.choice(cells, count, replace=False, shuffle=True)
    indices = np.stack(np.unravel_index(keys, (BATCH, *GRID)), axis=1).astype(np.int32)
    return SoakFrame(rng.normal(size=(count, CHANNELS)).astype(np.float16), indices)
