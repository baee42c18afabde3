# SPDX-License-Identifier: Apache-2.0
"""Float16 weights made for integers, and the search for integers, against brute force."""

from __future__ import annotations

from itertools import product as cartesian

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from scn_fx.quant.integer_search import Bounds, descend, round_successively
from scn_fx.quant.integers import holds_every_integer, quantise, weights_of
from scn_fx.quant.layer_samples import product
from tests.quant.improving import engine_integers

EVERY = np.arange(-127, 128)


@given(st.floats(2.0**-100, 2.0**100, width=32))
def test_float16_weights_give_the_integers_back_or_it_is_said_that_they_cannot(amax: float) -> None:
    ranges = torch.tensor([amax], dtype=torch.float32)
    stored = weights_of(torch.from_numpy(EVERY)[None], ranges).numpy()
    with np.errstate(over="ignore", invalid="ignore"):
        back = engine_integers(stored, ranges.numpy())
    exact = bool(np.isfinite(stored).all() and (back == EVERY).all())
    assert bool(holds_every_integer(ranges)) == exact


@given(st.floats(127 * 2.0**-23, 65504, width=32))
def test_every_integer_survives_from_subnormal_weights_to_the_largest(amax: float) -> None:
    ranges = np.array([amax], np.float32)
    stored = weights_of(torch.from_numpy(EVERY)[None], torch.from_numpy(ranges)).numpy()
    np.testing.assert_array_equal(engine_integers(stored, ranges)[0], EVERY)


def test_ranges_below_the_spacing_of_subnormal_numbers_are_told_apart() -> None:
    ranges = torch.tensor([127 * 2.0**-25, 127 * 2.0**-24, 127 * 2.0**-23, 65504.0, 65540.0])
    assert holds_every_integer(ranges).tolist() == [False, True, True, True, False]


@given(st.integers(0, 2**32 - 1))
def test_quantise_is_the_arithmetic_of_the_engine(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((4, 3, 2)).astype(np.float32)
    ranges = rng.uniform(0.2, 3, 4).astype(np.float32)
    values[0, 0] = ranges[0] * np.float32(2.5 / 127)  # near a tie
    got = quantise(torch.from_numpy(values), torch.from_numpy(ranges))
    np.testing.assert_array_equal(got.numpy(), engine_integers(values, ranges))


def problem(seed: int, inputs: int, out: int) -> tuple[torch.Tensor, torch.Tensor, Bounds, torch.Tensor]:
    """Gram matrix, product, bounds and continuous optimum of a small correlated least-squares problem."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((40, inputs)) @ rng.standard_normal((inputs, inputs))
    wanted = 3 * rng.standard_normal((inputs, out))
    gram, linear = rows.T @ rows, rows.T @ (rows @ wanted)
    bounds = Bounds(torch.from_numpy(np.floor(wanted)), torch.from_numpy(np.ceil(wanted)))
    return torch.from_numpy(gram), torch.from_numpy(linear), bounds, torch.from_numpy(wanted)


def cost(gram: torch.Tensor, linear: torch.Tensor, integers: torch.Tensor) -> torch.Tensor:
    return ((gram @ integers) * integers).sum(0) - 2 * (linear * integers).sum(0)


@given(st.integers(0, 2**32 - 1))
def test_the_search_stays_within_bounds_and_ends_where_no_single_step_helps(seed: int) -> None:
    gram, linear, bounds, wanted = problem(seed, 5, 3)
    nearest = wanted.round()
    first = round_successively(gram, linear, bounds)
    found = descend(gram, linear, first, bounds, 100)
    for integers in (first, found):
        assert bool((integers == integers.round()).all())
        assert bool((integers >= bounds.low).all() and (integers <= bounds.high).all())
    best = cost(gram, linear, found)
    slack = 1e-9 * best.abs().max()
    assert bool((best <= cost(gram, linear, first) + slack).all())
    assert bool((cost(gram, linear, descend(gram, linear, nearest, bounds, 100))
                 <= cost(gram, linear, nearest) + slack).all())  # fmt: skip
    for row in range(5):
        for step in (-1, 1):
            moved = found.clone()
            moved[row] = (moved[row] + step).clamp(bounds.low[row], bounds.high[row])
            assert bool((cost(gram, linear, moved) >= best - slack).all())


def test_the_search_comes_near_the_best_of_all_combinations() -> None:
    gaps, nearest_gaps = [], []
    for seed in range(20):
        gram, linear, bounds, wanted = problem(seed, 6, 1)
        combinations = torch.tensor(list(cartesian((0, 1), repeat=6)), dtype=torch.float64).t()
        every = bounds.low + combinations * (bounds.high - bounds.low)
        floor = -float((linear * wanted).sum())  # of the continuous optimum
        best = float(cost(gram, linear, every).min()) - floor
        found = descend(gram, linear, round_successively(gram, linear, bounds), bounds, 100)
        gaps.append((float(cost(gram, linear, found)) - floor) / best)
        nearest_gaps.append((float(cost(gram, linear, wanted.round())) - floor) / best)
    assert np.mean(gaps) < 1.2 < 2 < np.mean(nearest_gaps)


def test_more_inputs_than_a_block_are_searched_as_one() -> None:
    rng = np.random.default_rng(0)
    rows, wanted = rng.standard_normal((400, 150)), 3 * rng.standard_normal((150, 2))
    gram = torch.from_numpy(rows.T @ rows)
    linear = torch.from_numpy(rows.T @ (rows @ wanted))
    bounds = Bounds(torch.full((150, 2), -127.0).double(), torch.full((150, 2), 127.0).double())
    found = descend(gram, linear, torch.zeros(150, 2).double(), bounds, 200)
    plain, square, product_ = np.zeros((150, 2)), gram.numpy(), linear.numpy()
    for _ in range(200):  # coordinate by coordinate, without blocks
        for row in range(150):
            rest = square[row] @ plain - square[row, row] * plain[row]
            plain[row] = np.clip(np.rint((product_[row] - rest) / square[row, row]), -127, 127)
    np.testing.assert_array_equal(found.numpy(), plain)


def test_the_gram_matrix_of_integers_is_exact() -> None:
    rng = np.random.default_rng(1)
    integers = rng.integers(100, 128, (3000, 5)).astype(np.int8)  # sums beyond 2^24
    wide = integers.astype(np.int64)
    np.testing.assert_array_equal(product(torch.from_numpy(integers)).numpy(), wide.T @ wide)
