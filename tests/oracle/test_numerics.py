# SPDX-License-Identifier: Apache-2.0
"""The oracle's arithmetic against its definition, written out value by value."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.oracle import numerics, strategies
from tests.oracle.exact import fma32
from tests.oracle.strategies import Case


def _operands(case: Case) -> tuple[npt.NDArray[np.float16], ...]:
    rng = np.random.default_rng(case.seed)
    rows = len(case.oracle_maps()[0])
    return (
        strategies.features_for(rng, rows, case.channels[0]),
        *strategies.weights_for(rng, case.channels[1], case.kernel, case.channels[0]),
    )


def test_quantise_rounds_half_to_even_and_clamps() -> None:
    v = np.float32([0.5, 1.5, 2.5, -0.5, -1.5, 126.5, 127.5, 500, -127.5, -128.5, -1e30, 3e38])
    assert numerics.quantise(v, 127.0).tolist() == [0, 2, 2, 0, -2, 126, 127, 127, -128, -128, -128, 127]


def test_quantise_multiplies_by_a_float32_factor() -> None:
    amax, v = np.float32(0.3), np.float32(0.3) * (np.float32(100.5) / np.float32(127))
    exact = np.rint(float(v) * 127 / float(amax))
    assert numerics.quantise(v, amax) == np.rint(v * np.float32(np.float32(127) / amax))
    assert abs(int(numerics.quantise(v, amax)) - exact) <= 1


def test_quantise_refuses_a_range_of_zero() -> None:
    with pytest.raises(AssertionError, match="ranges"):
        numerics.quantise(np.float32([1]), 0.0)


@given(strategies.cases(max_sites=60, max_channels=6))
def test_int8_convolution_is_its_definition(case: Case) -> None:
    x, weight, bias = _operands(case)
    kernel_map = case.oracle_maps()[2]
    amax = np.maximum(np.abs(weight).max(axis=(1, 2, 3, 4)), 1e-3).astype(np.float32)
    y = numerics.convolution_int8(x, weight, bias, kernel_map, 2.5, amax)
    qx = np.concatenate([numerics.quantise(x, 2.5).astype(np.int64), np.zeros((1, x.shape[1]), np.int64)])
    qw = numerics.quantise(weight, amax[:, None, None, None, None]).astype(np.int64)
    total = np.einsum("mkc,okc->mo", qx[kernel_map], qw.reshape(len(qw), -1, x.shape[1]))
    scale = np.float32(2.5) / np.float32(127) * (amax / np.float32(127))
    np.testing.assert_array_equal(y, fma32(total.astype(np.float32), scale, bias.astype(np.float32)))


@pytest.mark.parametrize("channels", [512, 1024, 1025])
def test_int8_sums_are_exact_at_full_scale(channels: int) -> None:
    x = np.full((1, channels), -9.0, np.float16)  # quantises to -128, as do the weights
    weight = np.full((1, 1, 1, 1, channels), -9.0, np.float16)
    y = numerics.convolution_int8(x, weight, np.zeros(1), np.zeros((1, 1), np.int32), 1.0, [127.0])
    expected = np.float32(128 * 9 * channels) * (np.float32(1) / np.float32(127))
    np.testing.assert_array_equal(y, np.float32([[expected]]))


def test_int8_convolution_refuses_sums_beyond_int32() -> None:
    weight = np.zeros((1, 5, 5, 5, 1049), np.float16)
    with pytest.raises(AssertionError, match="overflow int32"):
        numerics.convolution_int8(np.zeros((1, 1049)), weight, [0], np.full((1, 125), -1), 1.0, [1.0])


@given(strategies.cases(max_sites=40, max_channels=8))
def test_fixed_order_convolution_is_a_chain_of_fmas(case: Case) -> None:
    x, weight, bias = _operands(case)
    kernel_map = case.oracle_maps()[2]
    total = np.zeros((len(kernel_map), len(weight)), np.float32)
    flat = weight.reshape(len(weight), -1, x.shape[1])
    for k in range(kernel_map.shape[1]):
        rows = kernel_map[:, k]
        for c in range(x.shape[1]):
            total = (
                np.where(rows[:, None] < 0, total, fma32(x[rows, c][:, None], flat[:, k, c], total))
                if len(x)
                else total
            )
    expected = total + bias.astype(np.float32)
    np.testing.assert_array_equal(numerics.convolution_fixed_order(x, weight, bias, kernel_map), expected)


def test_the_order_of_summation_is_visible() -> None:
    """Otherwise the fixed order could be anything and no test would notice."""
    rng = np.random.default_rng(1)
    x, weight = strategies.features_for(rng, 200, 8), rng.normal(size=(4, 3, 3, 3, 8)).astype(np.float16)
    kernel_map = rng.integers(-1, 200, (200, 27)).astype(np.int32)
    ours = numerics.convolution_fixed_order(x, weight, np.zeros(4), kernel_map)
    reverse = numerics.convolution_fixed_order(
        x, weight[:, ::-1, ::-1, ::-1], np.zeros(4), kernel_map[:, ::-1]
    )
    assert (ours != reverse).mean() > 0.1


@given(strategies.cases(max_sites=60, max_channels=64))
def test_bound_holds_for_float32_sums_in_any_order(case: Case) -> None:
    x, weight, bias = _operands(case)
    kernel_map = case.oracle_maps()[2]
    order = np.random.default_rng(case.seed + 1).permutation(case.volume)
    flat = weight.reshape(len(weight), -1, x.shape[1]).astype(np.float32)
    y = np.broadcast_to(bias.astype(np.float32), (len(kernel_map), len(weight))).copy()
    for k in order:
        rows = np.flatnonzero(kernel_map[:, k] >= 0)
        y[rows] += x[kernel_map[rows, k]].astype(np.float32) @ flat[:, k].T
    exact = numerics.convolution_float64(x, weight, bias, kernel_map)
    magnitude = numerics.convolution_magnitude(x, weight, bias, kernel_map)
    bound = numerics.gamma(case.volume * x.shape[1]) * magnitude
    assert (np.abs(y - exact) <= bound + 1e-300).all()


@given(st.floats(0, 60000, width=32))
def test_float16_half_ulp_bounds_the_rounding(v: float) -> None:
    assert abs(float(np.float16(v)) - v) <= numerics.float16_half_ulp(v)
    assert numerics.float16_half_ulp(v) <= max(v, 2.0**-14) * 2.0**-11


def test_add_int8_quantises_each_operand_in_its_own_range() -> None:
    a, b = np.float32([[1.0, -9.0]]), np.float32([[0.25, 0.25]])
    s0, s1 = np.float32(2) / np.float32(127), np.float32(0.5) / np.float32(127)
    expected = fma32(np.float32([[64, -128]]), s0, np.float32([[64, 64]]) * s1)
    np.testing.assert_array_equal(numerics.add_int8(a, b, 2.0, 0.5), expected)


def test_scatter_dense_places_batches_and_leaves_zeros() -> None:
    sites = np.array([[1, 0, 1, 2], [0, 0, 0, 0]], np.int32)
    dense = numerics.scatter_dense(np.float16([[1, 2], [3, 4]]), sites, 2, (1, 2, 3))
    assert dense.shape == (2, 2, 1, 2, 3) and dense.dtype == np.float16
    assert dense[1, :, 0, 1, 2].tolist() == [1, 2] and dense[0, :, 0, 0, 0].tolist() == [3, 4]
    assert np.count_nonzero(dense) == 4
