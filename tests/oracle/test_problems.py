# SPDX-License-Identifier: Apache-2.0
"""The generator of single convolutions: what a seed says, what the problems reach, and what they expect."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.core.activations import EVERY, NONE
from tests.oracle import numerics
from tests.oracle.compare import assert_same_bits
from tests.oracle.exact import fma32
from tests.oracle.problems import PRECISIONS, WIDTHS, random_problem
from tests.oracle.strategies import KINDS

MANY = [random_problem(seed) for seed in range(300)]


@pytest.mark.parametrize("seed", [0, 1, 2**32 + 5])
def test_a_seed_says_everything(seed: int) -> None:
    one, two, other = (random_problem(n) for n in (seed, seed, seed + 1))
    assert repr(one) == repr(two) != repr(other)
    for name, left, right in zip(one.operands._fields, one.operands, two.operands, strict=True):
        assert np.array_equal(np.asarray(left), np.asarray(right)), name


def test_the_problems_reach_every_choice() -> None:
    assert {p.case.kind for p in MANY} == set(KINDS)
    assert {(p.precision, p.output_precision) for p in MANY} == {
        *((p, "fp16") for p in PRECISIONS), ("int8", "int8"), ("fp16", "int8"), ("fp32", "fp32"),
    }  # fmt: skip
    assert {p.activation for p in MANY} == set(EVERY)
    assert {c for p in MANY for c in p.case.channels} >= {1, 8, 9, 16, 32, 64, 128}
    for flag in ("biased", "stores_int8", "nonnegative", "full_scale"):
        assert {getattr(p, flag) for p in MANY} == {False, True}, flag
    assert {p.expected.bound is None for p in MANY if p.precision != "int8"} == {False, True}


def test_options_narrow_the_choice() -> None:
    for seed in range(40):
        problem = random_problem(seed, precisions=("fp16",), kinds=("subm",), widths=(16,), max_sites=50)
        assert (problem.precision, problem.case.kind) == ("fp16", "subm")
        assert len(problem.case.sites) <= 50 and set(problem.case.channels) <= {1, 2, 4, 8, 16}
        assert problem.case.volume * np.prod(problem.case.channels) <= 400_000
    assert max(WIDTHS) == 256


def test_what_is_expected_ends_in_the_activation_and_the_roundings() -> None:
    """The same sums, finished in every way, follow from the plain ones."""
    plain = replace(MANY[0], precision="int8", output_precision="int8", activation=NONE, full_scale=False,
                    stores_int8=False)  # fmt: skip
    sums = plain.expected.values
    assert sums.dtype == np.float32
    for activation in EVERY:
        active = numerics.activate(sums, *activation)
        half = replace(plain, activation=activation, output_precision="fp16")
        assert_same_bits(half.expected.values, active.astype(np.float16))
        stored = replace(half, stores_int8=True).expected.values
        assert_same_bits(stored, numerics.quantise(active.astype(np.float16), 1.5))


def test_sums_at_full_scale_are_large() -> None:
    problem = next(p for p in MANY if p.full_scale and p.operands.kernel_map.size and p.case.volume > 4)
    o = problem.operands
    quantised = numerics.quantise(o.features.astype(np.float32), o.input_amax)
    assert set(np.unique(quantised)) <= {-128, 127}


def test_few_channels_of_float32_are_chains_of_fused_multiply_adds() -> None:
    rng = np.random.default_rng(0)
    x, w = (rng.normal(size=n).astype(np.float32) for n in ((2, 3), (1, 1, 1, 2, 3)))
    kernel_map = np.array([[0, 1], [1, -1]], np.int32)
    total = np.zeros((), np.float32)
    for k, row in enumerate(kernel_map[0]):
        for c in range(3):
            total = fma32(x[row, c], w[0, 0, 0, k, c], total)
    y = numerics.convolution_fixed_order(x, w, np.float32([0.25]), kernel_map)
    assert y[0, 0] == total + np.float32(0.25)
