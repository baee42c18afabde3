# SPDX-License-Identifier: Apache-2.0
"""Small int8 networks on the voxels of a grid, whose results are the same bits wherever they run."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.oracle import builder
from tests.oracle.points import Cells

__all__ = ["GRID", "network_on", "shape_of"]

GRID = Cells((-4.0, -3.0, -1.0), (0.25, 0.4, 0.3), (32, 15, 6))


def shape_of(grid: Cells, extra_z: int, axes: str = "zyx", ndim: int = 3) -> tuple[int, int, int]:
    """The grid's sites on the axes of a network."""
    x, y, z = grid.size
    if axes == "zyx":
        return z + extra_z, y, x
    return (x, y, z + extra_z) if ndim == 3 else (1, x, y)


def network_on(
    grid: Cells,
    *,
    columns: int = 4,
    extra_z: int = 1,
    axes: str = "zyx",
    ndim: int = 3,
    sparse: bool = False,
    batch_size: int = 1,
    bound: int = 100_000,
    metadata: dict[str, str] | None = None,
    input_range: float = 8.0,
) -> bytes:
    """A submanifold layer on the input's sites, a strided one behind it; dense, or both of them sparse."""
    rng = np.random.default_rng(columns)
    shape = shape_of(grid, extra_z, axes, ndim)
    flat = [1 if size == 1 else 3 for size in shape]
    padding = [k // 2 for k in flat]
    stride = [1 if size == 1 else 2 for size in shape]
    half = [(n + 2 * p - k) // s + 1 for n, p, k, s in zip(shape, padding, flat, stride, strict=True)]
    first = rng.integers(-127, 128, (16, *flat, columns)) / 127
    second = rng.integers(-127, 128, (16, *flat, 16)) / 127
    shared: dict[str, Any] = {"precision": "int8", "output_precision": "fp16", "output_bound": bound}
    pieces = [
        builder.convolution(
            "first", "features", "a", first, input_shape=shape, output_shape=shape, padding=padding,
            subm=True, input_range=input_range, weight_ranges=[1.0] * 16, **shared,
        ),
        builder.convolution(
            "second", "a", "b", second, input_shape=shape, output_shape=half, padding=padding, stride=stride,
            input_range=300.0, weight_ranges=[1.0] * 16, **shared,
        ),
    ]  # fmt: skip
    said = {"scn_fx.axes": axes, "scn_fx.ndim": str(ndim), **(metadata or {})}
    if sparse:
        return builder.build_onnx(*pieces, outputs=["a", "b"], metadata=said)
    dims = [batch_size, 16, *half]
    pieces.append(
        builder.node(
            "ScatterDense", "dense", ["b"], "c", format=axes, input_spatial_shape=half, output_shape=dims
        )
    )
    return builder.build_onnx(*pieces, metadata=said)
