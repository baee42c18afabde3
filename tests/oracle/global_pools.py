# SPDX-License-Identifier: Apache-2.0
"""Networks that end in global pooling, and frames whose sums depend on the order of all additions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tests.oracle import builder
from tests.oracle.frames import random_sites
from tests.oracle.geometry import output_shape

__all__ = ["CASES", "KINDS", "pool_frame", "pool_network"]

GRID = (8, 12, 12)
KINDS = ("max", "mean", "sum")
CASES: dict[str, tuple[int, ...]] = {
    "one site": (1,),
    "one chunk": (256,),
    "one site more": (257,),
    "several chunks": (900,),
    "an empty entry": (300, 0, 513),
    "empty ends": (0, 70, 0),
    "many entries": (3, 1, 0, 2, 258, 5, 4),
    "no sites": (0, 0),
}
"""Sites of each batch entry."""


def pool_network(
    kind: str, channels: int, batch: int, *, wide: bool = False, strided: bool = False, int8: bool = False
) -> bytes:
    """A convolution of one offset that reads two features, and global pooling of its result.

    `wide`: for float32, the first feature becomes very large and the second very small. Each value is a sum
    of two products, which float32 gives in one way. `strided`: on sites of its own, every second one along x.
    """
    weight = np.zeros((channels, 1, 1, 1, 2), np.float16)
    factors = 1 + np.arange(channels) / 8
    weight[:, 0, 0, 0, 0], weight[:, 0, 0, 0, 1] = factors, 1 / factors
    weight *= np.float16([1024, 2**-14]) if wide else np.float16([2**-3, 1])
    shape = output_shape(GRID, (1, 1, 1), (1, 1, 2), (0, 0, 0), (1, 1, 1)) if strided else GRID
    ranges = np.abs(weight).max(axis=(1, 2, 3, 4)).astype(np.float32).tolist()
    precision = {
        "precision": "int8",
        "output_precision": "int8",
        "input_range": 2.0**9,
        "weight_ranges": ranges,
    }
    first = builder.convolution(
        "first", "features", "rows", weight, input_shape=GRID, output_shape=shape, subm=not strided,
        stride=(1, 1, 2) if strided else (1, 1, 1), **precision if int8 else {},
    )  # fmt: skip
    last = builder.node(
        "SparseGlobalPool", "pool", ["rows"], "row", kind=kind, output_shape=[batch, channels]
    )
    return builder.build_onnx(first, last)


def pool_frame(
    counts: Sequence[int], *, wide: bool = False, seed: int = 0
) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.int32]]:
    """Features [N, 2] and sites in any order, `counts` in each batch entry.

    Every second row holds a large value, whose negative is elsewhere, and the others small ones: what is left
    of them in a sum depends on what it is added to.
    """
    rng = np.random.default_rng(seed)
    features, sites = [], []
    for entry, count in enumerate(counts):
        made = random_sites(rng, count, GRID)
        made[:, 0] = entry
        rows = np.zeros((count, 2), np.float16)
        pairs = count // 4
        large = rng.uniform(2**7, 2**8, pairs) * (2**7 if wide else 1)
        rows[:pairs, 0], rows[pairs : 2 * pairs, 0] = large, -large
        rows[2 * pairs :, 1] = rng.normal(size=count - 2 * pairs)
        features.append(rng.permutation(rows))
        sites.append(made)
    order = rng.permutation(sum(counts))
    return np.concatenate(features)[order], np.concatenate(sites)[order].astype(np.int32)
