# SPDX-License-Identifier: Apache-2.0
"""Sites of strided convolutions one behind the other: kernels, strides and paddings along x, at the ends of
lines and of their words, on short lines and long ones."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from scn_fx import _core
from tests.oracle import builder
from tests.oracle.compare import assert_same_bits

pytestmark = pytest.mark.gpu

Axis = tuple[int, int, int]
CHAINS: list[list[Axis]] = [
    [(3, 2, 1), (3, 2, 1), (3, 2, 1), (3, 2, 1)],
    [(3, 2, 0), (3, 2, 0), (3, 2, 0)],
    [(2, 2, 0), (2, 2, 1), (1, 2, 0)],
    [(1, 2, 1), (3, 2, 1)],
    [(4, 2, 1), (3, 2, 2)],
    [(5, 2, 2), (3, 2, 1)],
    [(6, 2, 3)],
    [(3, 3, 1), (2, 3, 1)],
    [(5, 4, 0), (4, 4, 3)],
    [(1, 1, 0), (3, 2, 1)],
    [(2, 1, 0), (3, 2, 1)],
    [(3, 1, 2)],
]
"""Kernel, stride and padding of each layer."""
GRIDS = [(7, 11, 2300), (5, 9, 4100), (9, 16, 33), (3, 7, 1)]


def sites_of(rng: np.random.Generator, grid: tuple[int, int, int], batch: int) -> npt.NDArray[np.int32]:
    """Cells here and there, runs, the ends of the grid, in any order."""
    z, y, x = grid
    cells = {(b, k, j, i) for b in range(batch) for k in (0, z - 1) for j in (0, y - 1) for i in (0, x - 1)}
    for _ in range(300):
        b, k, j, i = (int(rng.integers(n)) for n in (batch, *grid))
        for run in range(int(rng.choice([1, 1, 1, 2, 3, 40]))):
            cells.add((b, k, j, min(i + run, x - 1)))
    return rng.permutation(np.array(sorted(cells), np.int32))


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("chain", CHAINS, ids=str)
def test_sites_of_strided_layers_are_those_of_the_cpu(chain: list[Axis], grid: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(sum(grid) + len(chain))
    pieces, names, shape, batch = [], [], grid, 2
    for number, (kernel, stride, padding) in enumerate(chain):
        along = [(kernel, stride, padding) if n > 6 else (1, 1, 0) for n in shape]
        after = tuple((n + 2 * p - k) // s + 1 for n, (k, s, p) in zip(shape, along, strict=True))
        weight = rng.integers(-1, 2, (2, *(k for k, _, _ in along), 2)).astype(np.float16)
        names.append(f"v{number}")
        pieces.append(
            builder.convolution(
                f"conv{number}",
                names[-2] if number else "features",
                names[-1],
                weight,
                input_shape=shape,
                output_shape=after,
                stride=tuple(s for _, s, _ in along),
                padding=tuple(p for _, _, p in along),
                precision="fp16",
                output_precision="fp16",
            )
        )
        shape = after
    onnx = builder.build_onnx(*pieces, outputs=names, channels=2)
    core = _core.CudaEngine(onnx, max_batch=batch)
    for run in range(2):
        sites = sites_of(rng, grid, batch)
        frame = rng.integers(-2, 3, (len(sites), 2)).astype(np.float16), sites, batch
        core.enqueue(*frame)
        for (got, rows), (want, want_rows) in zip(
            core.to_host(), _core.Engine(onnx).run(*frame), strict=True
        ):
            np.testing.assert_array_equal(rows, want_rows)
            assert_same_bits(got, want, f"run {run}")
