# SPDX-License-Identifier: Apache-2.0
"""Random networks as ONNX files of the engine's own dialect, with a frame for each.

One generator, of two kinds of networks: `networks` are small and have every operator and every mixture of
precisions; `wide_network` has kernels up to 5, strides up to 3, and channels of all widths at which kernels
change, in one precision.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from tests.oracle import builder, strategies
from tests.oracle.choices import Choices, Drawn, Seeded
from tests.oracle.frames import random_sites
from tests.oracle.geometry import on_plane
from tests.oracle.problems import WIDTHS
from tests.oracle.random_layers import Drawing, Kind, Sparse, Triple

__all__ = ["RandomNetwork", "networks", "wide_network"]


@dataclass(frozen=True)
class RandomNetwork:
    """A serialised network, a frame, and a summary for failing tests."""

    onnx: bytes
    features: npt.NDArray[np.float16]
    sites: npt.NDArray[np.int32]
    batch_size: int
    summary: str

    def __repr__(self) -> str:
        return f"RandomNetwork({len(self.sites)} sites, batch {self.batch_size}: {self.summary})"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(repr(self))  # hypothesis would print every field of a dataclass


def _sites(kind: Kind, choices: Choices, rng: np.random.Generator, shape: Triple, batch: int) -> Any:
    count = choices.integer(0, kind.max_sites)
    if kind.counts and choices.pick((False, True, True)):
        count = choices.pick(kind.counts)
    return random_sites(rng, count, shape, batch, ordered=choices.pick((False, True)))


def _make(kind: Kind, choices: Choices) -> RandomNetwork:
    rng = np.random.default_rng(choices.integer(0, strategies.MOST_SEED))
    drawing = Drawing(kind, choices, rng)
    batch_size = choices.integer(1, kind.max_batch)
    low, high = kind.shape
    z, y, x = (choices.integer(a, b) for a, b in zip(low, high, strict=True))
    shape, channels = kind.flat((z, y, x)), choices.pick(kind.inputs)
    first = choices.pick([b for b in kind.blocks if b in ("subm", "strided", "transposed")])
    value = drawing.convolution(Sparse("features", channels, shape, "input"), first, True)
    for _ in range(choices.integer(0, kind.max_blocks)):
        block = choices.pick(kind.blocks)
        if block in ("residual", "activation", "sums", "concat", "affine", "gate", "pool", "norm", "union"):
            value = getattr(drawing, block)(value)
        elif block == "inverse":
            value = drawing.inverse(value, choices.pick((False, True)))
        else:
            value = drawing.convolution(value, block, choices.pick((False, True)))
    outputs = choices.pick((("dense",), ("dense",), ("sparse",), ("dense", "sparse")))
    last = value.tensor
    names = [drawing.dense(value, batch_size) if ending == "dense" else last for ending in outputs]
    said = {} if kind.ndim == 3 else {"scn_fx.ndim": str(kind.ndim)}
    onnx = builder.build_onnx(*drawing.pieces, outputs=names, channels=channels, metadata=said)
    sites = _sites(kind, choices, rng, shape, batch_size)
    features = strategies.features_for(rng, len(sites), channels)
    return RandomNetwork(onnx, features, on_plane(sites, kind.ndim), batch_size, "; ".join(drawing.words))


@st.composite
def networks(
    draw: st.DrawFn, *, exact: bool, max_sites: int = 150, max_blocks: int = 4, ndim: int = 3
) -> RandomNetwork:
    """Networks of one to ten convolutions: int8 and fp16 mixed, both output precisions, or none named.

    With `exact`, every node has one right answer bit for bit. With `ndim` 1 or 2 the file says so, and sites
    are [N, ndim + 1].
    """
    quantised = exact or draw(st.booleans())
    kind = Kind(
        inputs=range(1, 9 if exact else 21),
        widths=range(1, 25),
        precisions=("int8", "int8", "fp16") if quantised else (),
        exact=exact,
        max_blocks=max_blocks,
        max_sites=max_sites,
        counts=range(11),
        ndim=ndim,
    )
    return _make(kind, Drawn(draw))


def wide_network(seed: int, precision: str) -> RandomNetwork:
    """One to four blocks of any width in one precision ("int8" or "fp16"); batch 1 to 4."""
    kind = Kind(
        inputs=WIDTHS,
        widths=WIDTHS,
        precisions=(precision,),
        exact=False,
        blocks=("subm", "subm", "strided", "strided", "transposed", "residual", "residual", "inverse",
                "activation", "sums", "concat", "affine", "gate", "pool", "norm", "union"),
        max_blocks=2,
        max_kernel=5,
        max_stride=3,
        dilations=[(z, y, x) for z in (1, 2) for y in (1, 2) for x in (1, 2)],
        shape=((2, 3, 3), (8, 19, 39)),
        max_cells=30_000,
        max_batch=4,
        # the last one fills small grids
        counts=(0, 1, 2, 63, 64, 65, 900),
        max_sites=700,
    )  # fmt: skip
    network = _make(kind, Seeded(seed))
    return replace(network, summary=f"seed {seed}: {network.summary}")
