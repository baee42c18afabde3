# SPDX-License-Identifier: Apache-2.0
"""Compiled Add and ScatterDense against the oracle, bit by bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scn_fx import _core
from scn_fx.errors import OverflowedError, ScnError, SiteError
from tests.core.activations import NONE, Named, activations
from tests.core.instruction_sets import SUPPORTED, instruction_set
from tests.oracle import numerics, strategies
from tests.oracle.compare import assert_same_bits
from tests.oracle.exact import round_to_float16
from tests.oracle.frames import random_sites

Array = npt.NDArray[np.generic]
every_isa = pytest.mark.parametrize("isa", SUPPORTED)
sizes = st.tuples(st.integers(0, 300), st.integers(1, 130))
amaxes = st.floats(2.0**-7, 100.0, width=32)


def _pair(seed: int, size: tuple[int, int]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    return rng.normal(0, 2, size).astype(np.float32), rng.normal(0, 2, size).astype(np.float32)


def _finished(y: Array, output_precision: str, activation: Named) -> Array:
    y = numerics.activate(y, *activation)
    return round_to_float16(y).values if output_precision == "fp16" else y


def _add(a: Array, b: Array, precision: str, output: str, activation: Named = NONE, *amax: float) -> Array:
    return _core.add(a, b, precision, output, activation, *(amax or (0.0, 0.0)), name="block.add")


@every_isa
@given(strategies.seeds, sizes, amaxes, amaxes, st.sampled_from(["int8", "fp16"]), activations)
def test_int8_add(
    isa: str, seed: int, size: tuple[int, int], amax0: float, amax1: float, output: str, activation: Named
) -> None:
    a, b = _pair(seed, size)
    expected = _finished(numerics.add_int8(a, b, amax0, amax1), output, activation)
    with instruction_set(isa):
        assert_same_bits(_add(a, b, "int8", output, activation, amax0, amax1), expected)


@every_isa
@given(strategies.seeds, sizes, st.sampled_from(["int8", "fp16"]), activations)
def test_fp16_add_rounds_its_operands(
    isa: str, seed: int, size: tuple[int, int], output: str, activation: Named
) -> None:
    a, b = _pair(seed, size)
    sixteen = round_to_float16(a).values, round_to_float16(b).values
    expected = _finished(numerics.add_fp16(*sixteen), output, activation)
    with instruction_set(isa):
        assert_same_bits(_add(a, b, "fp16", output, activation), expected, "float32 operands")
        assert_same_bits(_add(*sixteen, "fp16", output, activation), expected, "float16 operands")


@every_isa
@given(strategies.seeds, sizes, activations)
def test_fp32_add(isa: str, seed: int, size: tuple[int, int], activation: Named) -> None:
    a, b = _pair(seed, size)
    with instruction_set(isa):
        assert_same_bits(_add(a, b, "fp32", "fp32", activation), _finished(a + b, "fp32", activation))


def test_the_two_inputs_of_an_int8_add_are_not_interchangeable() -> None:
    """fma(q_a, s_a, q_b * s_b) rounds b's product, not a's: swapping them shows in some last bits."""
    a, b = _pair(0, (200, 16))
    first, second = _add(a, b, "int8", "int8", NONE, 3.0, 1.7), _add(b, a, "int8", "int8", NONE, 1.7, 3.0)
    assert (first != second).any() and np.allclose(first, second, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("a", "b"), [(60000.0, 60000.0), (1e6, 0.0), (0.0, -1e6)])
def test_overflow_of_a_float16_sum_names_the_node(a: float, b: float) -> None:
    with pytest.raises(OverflowedError, match=r"block\.add"):
        _add(np.float32([[a]]), np.float32([[b]]), "fp16", "fp16")


@pytest.mark.parametrize("amax", [(0.0, 1.0), (1.0, 0.0), (-1.0, 1.0), (1.0, np.nan), (np.inf, 1.0)])
def test_int8_add_needs_positive_finite_ranges(amax: tuple[float, float]) -> None:
    with pytest.raises((ScnError, ValueError), match=r"block\.add"):
        _add(np.ones((2, 2), np.float32), np.ones((2, 2), np.float32), "int8", "int8", NONE, *amax)


def test_shapes_of_the_inputs_must_agree() -> None:
    with pytest.raises(SiteError, match=r"block\.add"):
        _add(np.ones((2, 2), np.float32), np.ones((2, 3), np.float32), "fp32", "fp32")


@given(
    strategies.seeds, st.integers(0, 200), strategies.triples(1, 9), st.integers(1, 3), st.integers(1, 70),
    st.sampled_from([np.float16, np.float32]),
)  # fmt: skip
def test_scatter_dense(
    seed: int, count: int, shape: tuple[int, int, int], batch: int, channels: int, dtype: Any
) -> None:
    rng = np.random.default_rng(seed)
    sites = random_sites(rng, count, shape, batch)
    features = rng.normal(size=(len(sites), channels)).astype(dtype)
    got = _core.scatter_dense(features, sites, batch, shape)
    assert_same_bits(got, numerics.scatter_dense(features, sites, batch, shape))


def test_scatter_dense_keeps_every_bit_pattern() -> None:
    features = np.array([[-0.0], [np.nan], [np.inf], [6e-8]], np.float16)
    sites = np.stack([np.arange(4)] * 4, 1).astype(np.int32) * [0, 0, 0, 1]
    got = _core.scatter_dense(features, sites.astype(np.int32), 1, (1, 1, 4))
    assert got.view(np.uint16).ravel().tolist() == features.view(np.uint16).ravel().tolist()


@pytest.mark.parametrize("row", [[1, 0, 0, 0], [0, 2, 0, 0], [0, 0, -1, 0]])
def test_scatter_dense_refuses_sites_outside_the_map(row: list[int]) -> None:
    with pytest.raises(SiteError):
        _core.scatter_dense(np.ones((1, 1), np.float32), np.array([row], np.int32), 1, (2, 2, 2))


def test_scatter_dense_refuses_another_number_of_indices() -> None:
    with pytest.raises(SiteError, match="2 features"):
        _core.scatter_dense(np.ones((2, 1), np.float32), np.zeros((1, 4), np.int32), 1, (2, 2, 2))
