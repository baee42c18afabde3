# SPDX-License-Identifier: Apache-2.0
"""Networks that unite sites: branches that keep, thin out or spread the sites of a frame, and their union."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from tests.oracle import builder, strategies
from tests.oracle.builder import Piece
from tests.oracle.frames import random_sites

__all__ = ["CASES", "CHANNELS", "GRID", "Branches", "union_frames", "union_network"]

GRID = (3, 4, 8)
CHANNELS = 5
"""Few enough that layers in float16 have one right answer, too."""
HALF_GRID, ODD_GRID = (3, 4, 4), (3, 4, 5)

CASES: dict[str, Sequence[str]] = {
    "disjoint": ("even", "odd"),
    "nested": ("even", "same"),
    "nested, the larger first": ("wider", "even"),
    "equal": ("copy", "same"),
    "overlapping": ("even", "odd", "wider"),
    "one part": ("wider",),
    "features": ("features", "odd"),
    "one value twice": ("even", "even"),
    "two values of the same sites": ("same", "other", "odd"),
    "eight parts": ("even", "odd", "same", "even", "copy", "wider", "odd", "other"),
}
"""Branches by what their sites are to each other."""


class Branches:
    """Layers that lead from the features to values on GRID; each branch is made once.

    `same` and `other` lie on the sites of the frame, `copy` on equal ones that another map makes, `even` and
    `odd` on those with such an x, `wider` on their neighbours, too.
    """

    def __init__(self, precision: str | None = None, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.precision = precision
        self.pieces: list[Piece] = []
        self.made = {"features": "features"}

    def layer(self, name: str, x: str, kernel: tuple[int, int, int] = (1, 1, 1), **geometry: Any) -> str:
        """A convolution between values of CHANNELS channels."""
        weight, bias = strategies.weights_for(self.rng, CHANNELS, kernel, CHANNELS)
        given: dict[str, Any] = {"input_shape": GRID, "output_shape": GRID}
        if self.precision:
            peak = np.maximum(np.abs(weight.astype(np.float32)).max(axis=(1, 2, 3, 4)), 1e-3)
            given |= {"precision": self.precision, "output_precision": self.precision}
            given |= {"input_range": 2.5, "weight_ranges": peak.tolist()}
        self.pieces.append(builder.convolution(name, x, name, weight, bias, **given | geometry))
        return name

    def _thinned(self, which: str, between: tuple[int, int, int], padding: tuple[int, int, int]) -> str:
        there: dict[str, Any] = {"stride": (1, 1, 2), "padding": padding}
        down = self.layer(f"{which}.down", "features", output_shape=between, **there)
        back: dict[str, Any] = {"input_shape": between, "output_padding": (0, 0, 1), "transposed": True}
        return self.layer(which, down, **back, **there)

    def of(self, which: str) -> str:
        """The value of a branch."""
        makers: dict[str, Callable[[], str]] = {
            "same": lambda: self.layer("same", "features", subm=True),
            "other": lambda: self.layer("other", "features", subm=True, activation="ReLU"),
            "copy": lambda: self.layer("copy", "features"),
            "wider": lambda: self.layer("wider", "features", (3, 3, 3), padding=(1, 1, 1)),
            "even": lambda: self._thinned("even", HALF_GRID, (0, 0, 0)),
            "odd": lambda: self._thinned("odd", ODD_GRID, (0, 0, 1)),
        }
        if which not in self.made:
            self.made[which] = makers[which]()
        return self.made[which]


def union_network(branches: Sequence[str], precision: str | None = None, **options: Any) -> bytes:
    """A union of branches, an int8 layer and an activation that read it; outputs the union and both."""
    made = Branches(precision)
    made.of("same")  # a network begins with a convolution
    inputs = [made.of(which) for which in branches]
    made.pieces.append(builder.union("union", inputs, "union", **options))
    made.pieces.append(builder.node("LeakyRelu", "leaky", ["union"], "leaky", alpha=0.25))
    made.precision = "int8"
    made.layer("reader", "union", (3, 3, 3), padding=(1, 1, 1), subm=True, activation="ReLU")
    return builder.build_onnx(*made.pieces, outputs=["union", "leaky", "reader"])


def union_frames() -> Iterator[tuple[Any, Any, int]]:
    """Features, sites and batch size: two samples, one, one site, none."""
    rng = np.random.default_rng(1)
    for count, batch in ((60, 2), (40, 1), (1, 1), (0, 1)):
        sites = random_sites(rng, count, GRID, batch)
        yield strategies.features_for(rng, len(sites), CHANNELS), sites, batch
