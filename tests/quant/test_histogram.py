# SPDX-License-Identifier: Apache-2.0
"""Histograms of magnitudes and of pairs against numpy on the values; order, division and merging."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scn_fx.quant.histogram import MagnitudeHistogram
from scn_fx.quant.pairs import CODES, LEVELS, PairHistogram

floats = st.floats(-(2.0**40), 2.0**40, width=32)
tensors = st.lists(st.lists(floats, max_size=8), min_size=1, max_size=5)


def collected(values: list[np.ndarray], num_bins: int = 256) -> MagnitudeHistogram:
    histogram = MagnitudeHistogram(num_bins)
    for value in values:
        histogram.collect(torch.from_numpy(value))
    return histogram


def counted(x: np.ndarray, width: float, bins: int) -> np.ndarray:
    """int64 [2, bins] by float64 division."""
    x = x.astype(np.float64)
    return np.stack(
        [np.bincount((np.abs(x[side]) / width).astype(np.int64), minlength=bins) for side in (x < 0, x > 0)]
    )


@given(tensors, st.sampled_from([256, 300, 511]))
def test_counts_are_those_of_all_values_at_once(parts: list[list[float]], num_bins: int) -> None:
    arrays = [np.array(part, np.float32) for part in parts]
    everything = np.concatenate(arrays)
    histogram = collected(arrays, num_bins)
    magnitude = float(np.abs(everything).max(initial=0))
    assert histogram.magnitude == magnitude
    assert np.log2(histogram.width) == round(np.log2(histogram.width))
    if magnitude >= 2.0**-100:
        assert num_bins <= magnitude / histogram.width < 2 * num_bins
    np.testing.assert_array_equal(histogram.counts, counted(everything, histogram.width, 2 * num_bins))
    assert histogram.zeros == int((everything == 0).sum())
    assert histogram.nonzero == int((everything != 0).sum())


def same(a: MagnitudeHistogram, b: MagnitudeHistogram) -> bool:
    kept, other = a.state(), b.state()
    return bool((kept.pop("counts") == other.pop("counts")).all()) and kept == other


@given(tensors, st.data())
def test_order_and_division_do_not_matter(parts: list[list[float]], data: st.DataObject) -> None:
    arrays = [np.array(part, np.float32) for part in parts]
    whole = collected([np.concatenate(arrays)])
    shuffled = data.draw(st.permutations(arrays))
    assert same(collected(list(shuffled)), whole)
    cut = data.draw(st.integers(0, len(arrays)))
    left, right = collected(list(shuffled[:cut])), collected(list(shuffled[cut:]))
    kept = right.state()["counts"].copy()
    left.merge(right)
    assert same(left, whole) and (right.counts == kept).all()
    assert same(MagnitudeHistogram.from_state(whole.state()), whole)


def test_a_large_map_is_counted_in_pieces() -> None:
    rng = np.random.default_rng(0)
    x = np.maximum(rng.standard_normal(400_000), -0.5).astype(np.float32)
    x[rng.random(x.size) < 0.3] = 0
    histogram = collected([x], 2048)
    np.testing.assert_array_equal(histogram.counts, counted(x, histogram.width, 4096))
    assert histogram.zeros == int((x == 0).sum())


def test_counts_beyond_the_float32_limit_are_exact() -> None:
    histogram = MagnitudeHistogram()
    x = torch.ones(1 << 18)
    once = collected([x.numpy()], 2048)
    for _ in range(17 << 2):  # 17 Mi > 2^24
        histogram.merge(once)
    assert histogram.nonzero == 17 << 20


def test_values_beyond_a_magnitude() -> None:
    histogram = collected([np.array([0, 1, -2, 3, 100, 900], np.float32)])
    assert (histogram.beyond(2), histogram.beyond(50), histogram.beyond(1e6)) == (4, 2, 0)


@pytest.mark.parametrize(
    "damage",
    [
        {"counts": np.zeros((2, 3), np.int64)},
        {"counts": np.full((2, 512), -1)},
        {"counts": np.zeros((2, 512))},
        {"extremes": [1.0, 2.0]},
        {"extremes": [0.0, float("nan")]},
        {"exponent": 3},
        {"zeros": -1},
    ],
)
def test_damaged_states_are_refused(damage: dict[str, object]) -> None:
    state = collected([np.array([0, 1, -2, 3, 100], np.float32)]).state()
    with pytest.raises(ValueError, match=r"counts|extremes"):
        MagnitudeHistogram.from_state({**state, **damage})


def pairs(parts: list[np.ndarray]) -> PairHistogram:
    histogram = PairHistogram()
    for part in parts:
        histogram.collect(torch.from_numpy(part[:, 0].copy()), torch.from_numpy(part[:, 1].copy()))
    return histogram


def code(x: float, largest: float) -> int:
    """The code of a value by logarithms."""

    def cell(v: float) -> int:
        exponent = np.floor(np.log2(v))
        return int(exponent * 8 + np.floor((v / 2.0**exponent - 1) * 8))

    if x == 0:
        return LEVELS
    level = max(cell(abs(x)) - cell(largest) + LEVELS, 0)
    return LEVELS + (level if x > 0 else -level)


couples = st.lists(
    st.lists(st.tuples(*[st.floats(-1e6, 1e6, width=32).filter(lambda v: v == 0 or abs(v) > 1e-6)] * 2),
             min_size=1, max_size=6),
    min_size=1, max_size=4,
)  # fmt: skip


@given(couples, st.data())
def test_pairs_are_counted_by_sign_exponent_and_three_bits(
    parts: list[list[tuple[float, float]]], data: st.DataObject
) -> None:
    arrays = [np.array(part, np.float32).reshape(-1, 2) for part in parts]
    everything = np.concatenate(arrays)
    expected = np.zeros((CODES, CODES), np.int64)
    largest = np.abs(everything).max(axis=0)
    for a, b in everything.tolist():
        expected[code(a, largest[0]), code(b, largest[1])] += 1
    order = data.draw(st.permutations(arrays))
    cut = data.draw(st.integers(0, len(arrays)))
    first, second = pairs(order[:cut]), pairs(order[cut:])
    first.merge(second)
    np.testing.assert_array_equal(first.counts, expected)
    again = PairHistogram.from_state(first.state())
    np.testing.assert_array_equal(again.counts, expected)
    for operand in (0, 1):
        edges = again.edges(operand)
        assert (np.diff(edges) > 0).all() and len(edges) == LEVELS + 2
        if largest[operand]:
            assert edges[-2] <= largest[operand] < edges[-1]


def test_damaged_pairs_are_refused() -> None:
    state = pairs([np.ones((3, 2), np.float32)]).state()
    for damage in ({"counts": np.zeros((2, 2), np.int64)}, {"tops": [1]}, {"tops": [1, 1 << 20]}):
        with pytest.raises(ValueError, match=r"counts|largest"):
            PairHistogram.from_state({**state, **damage})
