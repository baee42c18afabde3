# SPDX-License-Identifier: Apache-2.0
"""Compiled convolutions: the oracle's bits where integers or a fixed order rule, else derived bounds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from scn_fx import _core
from scn_fx.errors import OverflowedError, ScnError, SiteError
from tests.core.activations import NONE, RELU, Named
from tests.core.instruction_sets import SUPPORTED, instruction_set
from tests.oracle import numerics, strategies
from tests.oracle.compare import assert_same_bits, assert_within
from tests.oracle.dense import dense_convolution
from tests.oracle.problems import PRECISIONS, Problem, problems
from tests.oracle.strategies import Case, cases

Array = npt.NDArray[np.generic]
AMAX = 2.5
every_isa = pytest.mark.parametrize("isa", SUPPORTED)


def _operands(case: Case) -> tuple[Array, Array, Array, npt.NDArray[np.int32]]:
    """Features [N, C], weight, bias and kernel map of a case."""
    rng = np.random.default_rng(case.seed)
    inputs, _, kernel_map = case.oracle_maps()
    features = strategies.features_for(rng, len(inputs), case.channels[0])
    weight, bias = strategies.weights_for(rng, case.channels[1], case.kernel, case.channels[0])
    return features, weight, bias, kernel_map


def _operator(problem: Problem, **options: Any) -> Array:
    arguments = problem.arguments()
    del arguments["output_amax"]
    return _core.convolution(**arguments, **options)


def _weight_ranges(weight: Array) -> npt.NDArray[np.float32]:
    peak = np.abs(weight.astype(np.float32)).max(axis=(1, 2, 3, 4))
    return np.maximum(peak * np.float32(0.9), np.float32(1e-3))  # 0.9: some weights clip


def _convolve(
    operands: tuple[Array, ...],
    precision: str,
    output_precision: str,
    activation: Named = NONE,
    **options: Any,
) -> Array:
    x, weight, bias, kernel_map = operands
    ranges = options.pop("ranges", _weight_ranges(weight) if precision == "int8" else None)
    # weights and biases travel as float32, as the fused graph keeps them
    weight, bias = weight.astype(np.float32), None if bias is None else bias.astype(np.float32)
    amax = options.pop("amax", AMAX)
    return _core.convolution(
        x, weight, bias, kernel_map, precision, output_precision, activation, amax, ranges, **options
    )


@every_isa
@pytest.mark.parametrize("precision", PRECISIONS)
@given(st.data())
def test_the_operator_has_what_the_oracle_has(isa: str, precision: str, data: st.DataObject) -> None:
    """int8 and layers of few channels to the bit, the others within the bound of their sums."""
    problem = replace(data.draw(problems(precisions=(precision,))), stores_int8=False)
    with instruction_set(isa):
        one, two = (_operator(problem, threads=n) for n in (1, 2))
    problem.check(one, f"the operator, {isa}")
    if problem.expected.bound is not None:
        assert_same_bits(two, one, "two threads against one")
    problem.check(two, f"the operator, {isa}, two threads")


@given(cases(("subm", "strided", "transposed"), max_channels=16))
def test_fp32_equals_a_dense_convolution(case: Case) -> None:
    x, weight, _, kernel_map = _operands(case)
    y = _convolve((x, weight, None, kernel_map), "fp32", "fp32")
    dense = dense_convolution(case, x.astype(np.float64), weight.astype(np.float64))
    b, *zyx = case.oracle_maps()[1].T
    scale = np.abs(dense).max(initial=1e-30)
    assert_within(y, dense[b, :, zyx[0], zyx[1], zyx[2]], 1e-5 * scale)


@given(cases(max_sites=100, max_channels=12))
def test_float16_and_float32_arrays_of_equal_values_agree(case: Case) -> None:
    x, weight, bias, kernel_map = _operands(case)
    ranges = _weight_ranges(weight)
    for precision in ("int8", "fp16", "fp32"):
        limits = (AMAX, ranges) if precision == "int8" else (0.0, None)
        output = "fp32" if precision == "fp32" else "fp16"
        both = [
            _core.convolution(f, w, bias.astype(np.float32), kernel_map, precision, output, NONE, *limits)
            for f, w in ((x, weight), (x.astype(np.float32), weight.astype(np.float32)))
        ]
        assert_same_bits(*both, precision)


def test_float32_features_and_weights_are_rounded_to_float16() -> None:
    x, w = np.float32([[1.00031]]), np.full((1, 1, 1, 1, 1), 1.00031, np.float32)
    got = _core.convolution(x, w, None, np.zeros((1, 1), np.int32), "fp16", "int8", NONE, 0.0, None)
    assert got[0, 0] == np.float32(np.float16(1.00031)) ** 2


@every_isa
@pytest.mark.parametrize("channels", [(512, 16), (128, 256), (1, 1), (9, 33), (65, 17)])
def test_int8_at_full_scale(isa: str, channels: tuple[int, int]) -> None:
    """Every product is ±128 * ±128: sums reach what 16-bit intermediates could not hold."""
    rng = np.random.default_rng(channels[0])
    x = rng.choice([-9.0, 9.0], (70, channels[0])).astype(np.float16)
    weight = rng.choice([-9.0, 9.0], (channels[1], 3, 3, 3, channels[0])).astype(np.float16)
    x[:3], weight[:, :, :, 0] = -9.0, -9.0
    kernel_map = rng.integers(-1, 70, (70, 27)).astype(np.int32)
    kernel_map[:3] = rng.integers(0, 3, (3, 27))
    operands = x, weight, np.zeros(channels[1], np.float16), kernel_map
    ranges = np.ones(channels[1], np.float32)
    expected = numerics.convolution_int8(*operands, 1.0, ranges)
    with instruction_set(isa):
        assert_same_bits(_convolve(operands, "int8", "int8", amax=1.0, ranges=ranges), expected)


@every_isa
def test_rounding_ties_of_quantisation(isa: str) -> None:
    """Values on ties (k + 0.5), clipped ones and both zeros, through a weight of 127."""
    values = np.float32([0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 126.5, 127.5, 300, -127.5, -128.5, -300, 0.0, -0.0])
    operands = values[:, None], np.full((1, 1, 1, 1, 1), 127.0, np.float16), None
    kernel_map = np.arange(len(values), dtype=np.int32)[:, None]
    with instruction_set(isa):
        got = _convolve((*operands, kernel_map), "int8", "int8", amax=127.0, ranges=np.float32([127]))
    q = numerics.quantise(values, 127.0).astype(np.float32)
    assert_same_bits(got, (q * 127)[:, None])


def test_no_sites_give_no_rows() -> None:
    weight = np.ones((4, 3, 3, 3, 2), np.float32)
    for precision in ("int8", "fp16", "fp32"):
        ranges = np.ones(4, np.float32) if precision == "int8" else None
        output = "fp32" if precision == "fp32" else "fp16"
        empty = np.zeros((0, 2), np.float32), weight, None, np.zeros((0, 27), np.int32)
        y = _core.convolution(*empty, precision, output, RELU, 1.0, ranges)
        assert y.shape == (0, 4)


def _one(value: float, weight: float, precision: str, output: str, **options: Any) -> Array:
    x, w = np.float32([[value]]), np.full((1, 1, 1, 1, 1), weight, np.float32)
    amax, ranges = options.pop("amax", 1.0), np.float32([options.pop("range_", 1.0)])
    ranges = ranges if precision == "int8" else None
    zero = np.zeros((1, 1), np.int32)
    return _core.convolution(x, w, None, zero, precision, output, NONE, amax, ranges, name="conv9", **options)


@pytest.mark.parametrize(("value", "weight"), [(300.0, 300.0), (1e6, 1.0), (1.0, 1e6)])
def test_float16_overflow_is_an_error_that_names_the_layer(value: float, weight: float) -> None:
    with pytest.raises(OverflowedError, match="conv9"):
        _one(value, weight, "fp16", "fp16")


def test_overflow_of_an_int8_layer_rounded_to_float16() -> None:
    with pytest.raises(OverflowedError, match="conv9"):
        _one(300.0, 300.0, "int8", "fp16", amax=300.0, range_=300.0)
    assert _one(300.0, 300.0, "int8", "int8", amax=300.0, range_=300.0)[0, 0] > 65520


def test_the_largest_float16_is_no_overflow() -> None:
    assert _one(65504.0, 1.0, "fp16", "fp16")[0, 0] == 65504


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf])
@pytest.mark.parametrize("which", ["amax", "range_"])
def test_ranges_must_be_positive_and_finite(value: float, which: str) -> None:
    with pytest.raises((ScnError, ValueError), match="conv9"):
        _one(1.0, 1.0, "int8", "fp16", **{which: value})


def test_sums_that_could_overflow_int32_are_refused() -> None:
    weight = np.zeros((1, 5, 5, 5, 1049), np.float32)
    kernel_map = np.full((1, 125), -1, np.int32)
    arguments = np.zeros((1, 1049), np.float32), weight, None, kernel_map, "int8", "fp16", NONE
    with pytest.raises((ScnError, ValueError), match=r"32-bit|int32"):
        _core.convolution(*arguments, 1.0, np.float32([1]), name="wide")


@given(cases(("subm",), max_sites=50, max_channels=3), st.integers(-5, 5))
def test_map_entries_beyond_the_features_are_refused(case: Case, beyond: int) -> None:
    x, weight, bias, kernel_map = _operands(case)
    assume(len(kernel_map))
    wrong = kernel_map.copy()
    wrong[-1, 0] = len(x) + beyond if beyond >= 0 else beyond - 1
    with pytest.raises(SiteError):
        _convolve((x, weight, bias, wrong), "fp32", "fp32")


def test_feature_width_must_be_the_weights() -> None:
    with pytest.raises(SiteError, match="conv9"):
        _core.convolution(
            np.zeros((1, 3), np.float32), np.zeros((1, 1, 1, 1, 4), np.float32), None,
            np.zeros((1, 1), np.int32), "fp32", "fp32", NONE, 0.0, None, name="conv9",
        )  # fmt: skip
