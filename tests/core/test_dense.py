# SPDX-License-Identifier: Apache-2.0
"""Dense maps of the engine on the CPU: every order of axes, other batches than the exported one, no sites."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

import numpy as np
import numpy.typing as npt
import pytest

from scn_fx import Engine
from scn_fx.errors import ArgumentError
from tests.oracle.builder import Piece, build_onnx, convolution, node
from tests.oracle.compare import assert_same_bits
from tests.oracle.frames import random_sites

GRID = (2, 5, 7)
CHANNELS = 3
BATCH = 2
RNG = np.random.default_rng(0)
SITES = random_sites(RNG, 40, GRID, BATCH)
FEATURES = RNG.normal(size=(len(SITES), CHANNELS)).astype(np.float16)


def _dense(channels: int = CHANNELS, batch: int = BATCH) -> list[Piece]:
    """The features themselves, as a dense map."""
    weight = np.eye(channels, dtype=np.float16).reshape(channels, 1, 1, 1, channels)
    shape = [batch, channels, *GRID]
    return [
        convolution("same", "features", "rows", weight, input_shape=GRID, output_shape=GRID, subm=True),
        node("ScatterDense", "dense", ["rows"], "dense", format="zyx", input_spatial_shape=list(GRID),
             output_shape=shape),
    ]  # fmt: skip


def _turned(pieces: list[Piece], *steps: tuple[str, Sequence[int]]) -> bytes:
    """The file of a map that goes through these steps, as ("Transpose", axes)."""
    name = "dense"
    for number, (op_type, dims) in enumerate(steps):
        made = f"{op_type}{number}"
        pieces.append(node(op_type, made, [name], made, dims=list(dims)))
        name = made
    return build_onnx(*pieces, outputs=[name])


def _map(
    features: npt.NDArray[np.generic], sites: npt.NDArray[np.int32], batch: int
) -> npt.NDArray[np.generic]:
    dense = np.zeros((batch, features.shape[1], *GRID), features.dtype)
    b, z, y, x = sites.T
    dense[b, :, z, y, x] = features
    return dense


@pytest.mark.parametrize("precision", [None, "fp32"])
@pytest.mark.parametrize("threads", [1, 2])
def test_every_order_of_the_axes(precision: str | None, threads: int) -> None:
    """Values of two bytes and of four."""
    dtype = np.float32 if precision else np.float16
    expected = _map(FEATURES.astype(dtype), SITES, BATCH)
    for axes in permutations(range(5)):
        engine = Engine(_turned(_dense(), ("Transpose", axes)), precision=precision, threads=threads)
        got = engine(FEATURES, SITES, batch_size=BATCH)
        assert_same_bits(got, np.ascontiguousarray(expected.transpose(axes)), str(axes))


def test_one_step_after_another() -> None:
    steps = [("Transpose", (0, 1, 4, 2, 3)), ("Reshape", (BATCH, CHANNELS * 7, 10)), ("Transpose", (0, 2, 1)),
             ("Reshape", (BATCH, 2, 5, 7 * CHANNELS))]  # fmt: skip
    expected = _map(FEATURES, SITES, BATCH).transpose(0, 1, 4, 2, 3)
    expected = expected.reshape(BATCH, CHANNELS * 7, 10).transpose(0, 2, 1).reshape(BATCH, 2, 5, 7 * CHANNELS)
    got = Engine(_turned(_dense(), *steps))(FEATURES, SITES, batch_size=BATCH)
    assert_same_bits(got, np.ascontiguousarray(expected))


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_a_frame_may_have_another_batch_while_that_comes_first(batch: int) -> None:
    sites = random_sites(np.random.default_rng(batch), 30, GRID, batch)
    features = np.ones((len(sites), CHANNELS), np.float16)
    engine = Engine(
        _turned(_dense(), ("Transpose", (0, 3, 1, 2, 4)), ("Reshape", (BATCH, 5, CHANNELS * 2, 7)))
    )
    expected = _map(features, sites, batch).transpose(0, 3, 1, 2, 4).reshape(batch, 5, CHANNELS * 2, 7)
    assert_same_bits(engine(features, sites, batch_size=batch), np.ascontiguousarray(expected))


@pytest.mark.parametrize(
    "steps", [[("Transpose", (1, 0, 2, 3, 4))], [("Reshape", (BATCH * CHANNELS, 2, 5, 7))]], ids=str
)
def test_elsewhere_it_is_an_error(steps: list[tuple[str, Sequence[int]]]) -> None:
    engine = Engine(_turned(_dense(), *steps))
    with pytest.raises(ArgumentError, match=r"does not start with the batch.*exported batch of 2, not 1"):
        engine(FEATURES[:0], SITES[:0], batch_size=1)
    assert engine(FEATURES, SITES, batch_size=BATCH).size == BATCH * CHANNELS * np.prod(GRID)


def test_a_frame_without_sites_is_all_zeros_after_a_full_one() -> None:
    engine = Engine(_turned(_dense(), ("Transpose", (0, 2, 3, 4, 1))))
    assert np.count_nonzero(engine(FEATURES, SITES, batch_size=BATCH))
    empty = engine(FEATURES[:0], SITES[:0], batch_size=BATCH)
    assert empty.shape == (BATCH, *GRID, CHANNELS) and not empty.any()
