# SPDX-License-Identifier: Apache-2.0
"""A small network, for tests of what surrounds the engines. Random ones: `tests.oracle.random_networks`."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.oracle import builder

__all__ = ["GRID", "small_network"]

GRID = (6, 10, 12)
"""Grid of `small_network`."""


def small_network(
    *,
    scale: float = 0.1,
    bound: int = 1000,
    batch_size: int = 1,
    sparse: bool = False,
    precision: str = "int8",
) -> bytes:
    """A residual block on two channels and a strided layer of at most `bound` sites; dense or sparse."""
    weight = np.full((2, 3, 3, 3, 2), scale, np.float16)
    shared: dict[str, Any] = {"precision": precision, "output_precision": "fp16"}
    ranges = {"input_range": 2.0, "weight_ranges": [max(scale, 1e-3)] * 2} if precision == "int8" else {}
    half = (3, 5, 6)
    pieces = [
        builder.convolution(
            "conv1.0", "features", "a", weight, input_shape=GRID, output_shape=GRID, padding=(1, 1, 1),
            subm=True, **shared, **ranges,
        ),
        builder.add("conv1.add", "a", "features", "b", **shared, ranges=(2.0, 2.0) if ranges else None),
        builder.convolution(
            "conv2.0", "b", "c", weight, input_shape=GRID, output_shape=half, stride=(2, 2, 2),
            padding=(1, 1, 1), output_bound=bound, **shared, **ranges,
        ),
    ]  # fmt: skip
    if not sparse:
        dense = {"input_spatial_shape": list(half), "output_shape": [batch_size, 2, *half]}
        pieces.append(builder.node("ScatterDense", "dense", ["c"], "d", format="zyx", **dense))
    return builder.build_onnx(*pieces)
