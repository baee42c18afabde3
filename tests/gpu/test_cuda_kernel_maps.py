# SPDX-License-Identifier: Apache-2.0
"""Kernel maps whose 16-bit distances do not reach: a sparse plane between planes of more sites than that."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from scn_fx import _core
from tests.oracle import builder
from tests.oracle.compare import assert_same_bits

pytestmark = pytest.mark.gpu

SHAPE = (3, 260, 256)
CHANNELS = 3


def far_sites(rng: np.random.Generator) -> npt.NDArray[np.int32]:
    """64 sites all over the middle plane, one tile of rows; the planes beside it are full: 66,560 sites each.

    Offsets to those planes find rows from the first to the last of them.
    """
    cells = SHAPE[1] * SHAPE[2]
    assert cells > 0x10000 and cells % 64 == 0, "tiles are 64 rows and begin with the middle plane"
    middle = np.concatenate([[0, cells - 1], 1 + rng.choice(cells - 2, 62, replace=False)])
    cell = np.concatenate([np.arange(cells), cells + middle, 2 * cells + np.arange(cells)])
    z, y, x = np.unravel_index(rng.permutation(cell), SHAPE)
    return np.stack([np.zeros_like(z), z, y, x], axis=1).astype(np.int32)


# By plane along z; one by one; runs that differ from planes.
@pytest.mark.parametrize(
    ("kernel", "dilation"), [((3, 3, 3), (1, 1, 1)), ((3, 3, 3), (1, 1, 2)), ((3, 1, 1), (1, 1, 1))]
)
def test_distances_beyond_16_bits(kernel: tuple[int, int, int], dilation: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(sum(kernel) + sum(dilation))
    padding = tuple(k // 2 * d for k, d in zip(kernel, dilation, strict=True))
    same: dict[str, Any] = {
        "input_shape": SHAPE,
        "output_shape": SHAPE,
        "padding": padding,
        "dilation": dilation,
        "subm": True,
        "output_precision": "fp16",
    }
    first = rng.normal(size=(16, *kernel, CHANNELS)).astype(np.float16)
    second = rng.normal(size=(16, *kernel, 16)).astype(np.float16)
    ranges = np.abs(second).max(axis=(1, 2, 3, 4)).astype(np.float32).tolist()
    onnx = builder.build_onnx(
        builder.convolution("conv1.0", "features", "a", first, precision="fp16", **same),
        builder.convolution(
            "conv1.1", "a", "b", second, precision="int8", input_range=8.0, weight_ranges=ranges, **same
        ),
        outputs=["a", "b"],
        channels=CHANNELS,
    )
    sites = far_sites(rng)
    frame = rng.normal(size=(len(sites), CHANNELS)).astype(np.float16), sites, 1
    expected = _core.Engine(onnx).run(*frame)
    core = _core.CudaEngine(onnx)
    for number in range(2):
        core.enqueue(*frame)
        for (got, rows), (want, want_rows) in zip(core.to_host(), expected, strict=True):
            np.testing.assert_array_equal(rows, want_rows)
            assert_same_bits(got, want, f"run {number}")
