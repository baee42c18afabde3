# SPDX-License-Identifier: Apache-2.0
"""The range of each method against numpy on the values themselves, and against modelopt's own functions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from modelopt.torch.quantization.calib.histogram import _compute_amax_entropy
from scipy.stats import entropy

from scn_fx.quant.histogram import MagnitudeHistogram
from scn_fx.quant.methods import _least_divergence, by_mse, range_of

METHODS = ("max", "percentile", "mse", "entropy")


def sample(kind: str, size: int = 40_000, seed: int = 0) -> torch.Tensor:
    """Values like a sparse feature map's: half zero after a ReLU, heavy-tailed, two-sided, or lopsided."""
    rng = np.random.default_rng(seed)
    values = {
        "relu": lambda: np.maximum(rng.standard_normal(size), 0),
        "heavy": lambda: rng.standard_t(2.5, size),
        "uniform": lambda: rng.uniform(-3, 3, size),
        "exponential": lambda: rng.exponential(0.01, size),
        "lopsided": lambda: np.where(rng.random(size) < 0.5, -10, 1) * rng.exponential(1.0, size),
    }[kind]()
    return torch.from_numpy(values.astype(np.float32))


KINDS = ("relu", "heavy", "uniform", "exponential", "lopsided")


def collected(*values: torch.Tensor, num_bins: int = 2048) -> MagnitudeHistogram:
    histogram = MagnitudeHistogram(num_bins)
    for value in values:
        histogram.collect(value)
    return histogram


def quantised(x: np.ndarray, amax: float) -> np.ndarray:
    """What the number format makes of float64 values, in float64."""
    return np.clip(np.rint(x * (127 / amax)), -128, 127) * (amax / 127)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("percentile", [90.0, 99.99, 100.0])
def test_percentile_is_the_next_bin_edge_above_that_of_the_values(kind: str, percentile: float) -> None:
    x = sample(kind).numpy()
    magnitudes = np.sort(np.abs(x[x != 0]))
    exact = magnitudes[int(np.ceil(percentile / 100 * len(magnitudes))) - 1]
    histogram = collected(torch.from_numpy(x))
    assert 0 <= range_of(histogram, "percentile", percentile) - exact <= histogram.width


def test_max_is_exact() -> None:
    x = sample("heavy")
    assert range_of(collected(x, x / 3), "max") == float(x.abs().max())


@pytest.mark.parametrize("kind", KINDS)
def test_mse_minimises_the_squared_error_of_the_histogram(kind: str) -> None:
    histogram = collected(sample(kind), num_bins=512)
    used = histogram.used
    centers = (np.arange(used) + 0.5) * histogram.width
    candidates = centers[128:]
    errors = [
        sum(
            ((quantised(sign * centers, amax) - sign * centers) ** 2 * histogram.counts[row, :used]).sum()
            for row, sign in ((0, -1), (1, 1))
        )
        for amax in candidates
    ]
    chosen = by_mse(histogram)
    position = int(np.argmin(np.abs(candidates - chosen)))
    assert candidates[position] == pytest.approx(chosen, rel=1e-12)
    assert errors[position] <= min(errors) * (1 + 1e-6)


@pytest.mark.parametrize("kind", ["heavy", "lopsided"])
def test_mse_is_next_to_the_best_for_the_values_themselves(kind: str) -> None:
    x = sample(kind).numpy().astype(np.float64)
    grid = np.geomspace(0.03, 1, 120) * np.abs(x).max()
    errors = [np.square(quantised(x, amax) - x).sum() for amax in grid]
    chosen = np.square(quantised(x, range_of(collected(torch.from_numpy(x)), "mse")) - x).sum()
    assert chosen <= 1.01 * min(errors) < errors[-1]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_bins", [256, 300])
def test_entropy_agrees_with_the_usual_search(kind: str, num_bins: int) -> None:
    histogram = collected(sample(kind, 5_000, seed=num_bins), num_bins=num_bins)
    counts = histogram.magnitudes()
    edges = (np.arange(len(counts) + 1) * histogram.width).astype(np.float32)
    expected = float(_compute_amax_entropy(counts.astype(np.int32), edges, 8, False))
    assert range_of(histogram, "entropy") == min(expected, histogram.magnitude)


def brute_force_divergences(hist: np.ndarray) -> np.ndarray:
    """Kullback-Leibler divergence for 128, 129, ... kept bins, with every distribution written out."""
    bins = hist.astype(np.float64)
    bins[0] = bins[1]
    result = []
    for kept in range(128, len(bins) + 1):
        group = np.arange(kept) * 128 // kept
        filled = bins[:kept] > 0
        counts = np.bincount(group[filled], minlength=128)
        means = np.bincount(group, weights=bins[:kept], minlength=128) / np.maximum(counts, 1)
        q = np.where(filled, means[group], 0)
        p = bins[:kept].copy()
        p[-1] += bins[kept:].sum()
        result.append(entropy(p, q))
    return np.array(result)


def test_entropy_minimises_the_divergence_where_bins_are_empty() -> None:
    rng = np.random.default_rng(5)
    for trial in range(6):
        hist = rng.poisson(3.0 / (1 + np.arange(256) / 20)).astype(np.int64) * rng.integers(0, 2, 256)
        hist[1], hist[-1] = 4 * (trial % 3), trial % 2
        divergences = brute_force_divergences(hist)
        chosen = divergences[_least_divergence(hist, np.arange(128, 257))]
        assert np.isfinite(divergences).any()
        assert chosen == pytest.approx(divergences.min(), rel=1e-9)


def test_entropy_takes_the_first_bin_for_its_neighbour_and_the_last_of_equal_minima() -> None:
    # Bins 0 and 1 filled: every number of kept bins below 256 represents them exactly, so the last candidate
    # wins.
    candidates = np.arange(128, 201)
    for first in (0, 5, 10**9):
        hist = np.zeros(200, np.int64)
        hist[:2] = first, 5
        assert _least_divergence(hist, candidates) == len(candidates) - 1


@pytest.mark.parametrize("method", METHODS)
def test_ranges_do_not_depend_on_the_unit_of_the_values(method: str) -> None:
    x = sample("heavy", 10_000)
    assert range_of(collected(x * 2.0**-40), method) * 2.0**40 == range_of(collected(x), method)


@pytest.mark.parametrize("method", METHODS)
def test_zeros_change_no_range_and_alone_give_none(method: str) -> None:
    x = sample("uniform", 2_000)
    assert range_of(collected(torch.zeros(50), x, torch.zeros(7)), method) == range_of(collected(x), method)
    assert range_of(collected(torch.zeros(50)), method) == 0.0


@pytest.mark.parametrize("method", METHODS)
def test_values_next_to_the_smallest_numbers_have_a_range_all_the_same(method: str) -> None:
    x = torch.tensor([1e-44, -1e-45, 3e-38])
    assert 0 < range_of(collected(x), method) <= float(x.max())
