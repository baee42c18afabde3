# SPDX-License-Identifier: Apache-2.0
"""Products that kernels sum in 16 bits where the weights allow it: at the limits of what fits, and beyond."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scn_fx import _core
from tests.core.activations import NONE
from tests.core.instruction_sets import SUPPORTED, instruction_set
from tests.oracle import numerics
from tests.oracle.compare import assert_same_bits

Weights = npt.NDArray[np.int64]
every_isa = pytest.mark.parametrize("isa", SUPPORTED)
# in and out: the kernels of narrow layers and of others, numbers of quads that groups divide and do not
CHANNELS = [(16, 16), (32, 32), (16, 32), (8, 16), (24, 16), (64, 64), (72, 48), (128, 33)]
QUADS = [2, 4, 8]


def _check(x: npt.NDArray[np.int64], weight: Weights, isa: str) -> None:
    """Features [N, C] in 0…127 and weights [out, offsets, C], all integers that int8 takes as they are."""
    rows = len(x)
    out, offsets, channels = weight.shape
    # every row as every offset's neighbour, and some rows without some of them
    kernel_map = (np.arange(rows)[:, None] + np.arange(offsets)).astype(np.int32) % rows
    kernel_map[np.random.default_rng(rows).random(kernel_map.shape) < 0.2] = -1
    features, kernels = x.astype(np.float16), weight.reshape(out, 1, 1, offsets, channels).astype(np.float16)
    ranges = np.full(out, 127, np.float32)
    bias = np.zeros(out, np.float16)
    expected = numerics.convolution_int8(features, kernels, bias, kernel_map, 127.0, ranges)
    with instruction_set(isa):
        got = _core.convolution(
            features, kernels.astype(np.float32), None, kernel_map, "int8", "int8", NONE, 127.0, ranges
        )
    assert_same_bits(got, expected)


def _lanes(channels: int, out: int, quads: int, total: int) -> Weights:
    """Weights [out, 1, C] of which those that meet in one 16-bit sum of so many quads add up to `total`:
    two neighbouring channels of each quad."""
    count = 2 * quads
    spread = np.full(count, int(total / count))
    spread[: abs(total) % count] += np.sign(total)
    assert spread.sum() == total
    weight = np.zeros((out, 1, channels), np.int64)
    for c in range(channels):
        quad, within = divmod(c, 4)
        weight[:, :, c] = spread[quad % quads * 2 + within % 2]
    return weight


@every_isa
@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("quads", QUADS)
def test_sums_at_the_limits(isa: str, channels: tuple[int, int], quads: int) -> None:
    """127 * 258 = 32766 is the last sum of such weights that fits; the offsets differ."""
    x = np.full((9, channels[0]), 127)
    for limit in (258, 259):
        _check(x, np.repeat(_lanes(*channels, quads, limit), 3, axis=1), isa)
        _check(x, np.repeat(_lanes(*channels, quads, -limit), 3, axis=1), isa)
    mixed = [_lanes(*channels, quads, total) for total in (-259, 258, 0, 259, -258, 100)]
    _check(x, np.concatenate(mixed, axis=1), isa)


@every_isa
@pytest.mark.parametrize("channels", CHANNELS)
def test_shifted_sums_at_the_limits(isa: str, channels: tuple[int, int]) -> None:
    """Where a sum may start anywhere, weights of 516 fit: 127 * 516 = 65532. An output's two sums of opposite
    signs let the starts cancel out. Features of 0 leave a sum at its start."""
    signs = np.where(np.arange(channels[0]) % 4 < 2, 1, -1)
    x = np.full((12, channels[0]), 127)
    x[3:6], x[6:9], x[9:] = 0, np.where(signs > 0, 127, 0), np.where(signs < 0, 127, 0)
    for total in (512, 515, 516, 517, 520):
        weight = np.repeat(_lanes(*channels, 4, total), 3, axis=1) * signs
        _check(x, weight, isa)
        _check(x, -weight, isa)
        weight[:, 1] = -weight[:, 1] // 9
        _check(x, weight, isa)


@every_isa
@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("value", [127, -127, -128])
def test_extreme_weights(isa: str, channels: tuple[int, int], value: int) -> None:
    _check(np.full((9, channels[0]), 127), np.full((channels[1], 3, channels[0]), value), isa)


@every_isa
@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("quads", QUADS)
def test_one_heavy_sum_among_light_ones(isa: str, channels: tuple[int, int], quads: int) -> None:
    """One output, at one offset, in one place: the plan must notice it wherever it is."""
    rng = np.random.default_rng(quads)
    light = rng.integers(-3, 4, (channels[1], 4, channels[0]))
    for sign in (1, -1):
        heavy = light.copy()
        output, offset = rng.integers(channels[1]), rng.integers(4)
        first = rng.integers(max(1, channels[0] // (4 * quads))) * 4 * quads + 2 * rng.integers(2)
        for c in range(first, min(channels[0], first + 4 * quads), 4):
            heavy[output, offset, c : c + 2] = sign * (130 // quads + 1)
        _check(np.full((40, channels[0]), 127), np.clip(heavy, -128, 127), isa)


@every_isa
@given(
    st.sampled_from(CHANNELS),
    st.sampled_from([(8, 15), (12, 25), (30, 60), (60, 127)]),
    st.integers(0, 2**32 - 1),
)
def test_random_weights_near_the_limits(
    isa: str, channels: tuple[int, int], magnitudes: tuple[int, int], seed: int
) -> None:
    """Positive and negative weights, features of 0 and 127 that pick one sign where they can."""
    rng = np.random.default_rng(seed)
    low, high = magnitudes
    weight = rng.integers(low, high + 1, (channels[1], 3, channels[0]))
    weight *= rng.choice([-1, 1], weight.shape, p=rng.permutation([0.2, 0.8]))
    rows = np.where(rng.random((70, channels[0])) < 0.9, 127, 0)
    rows[0], rows[1] = np.where(weight[0, 0] > 0, 127, 0), np.where(weight[0, 1] < 0, 127, 0)
    _check(rows, weight, isa)
