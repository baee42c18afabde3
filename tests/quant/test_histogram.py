# SPDX-License-Identifier: Apache-2.0
"""The calibrator's ranges against independent numpy computations and against modelopt's own functions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from modelopt.torch.quantization.calib import HistogramCalibrator
from modelopt.torch.quantization.calib.histogram import _compute_amax_entropy
from scipy.stats import entropy

from quant.histogram import (
    SparseHistogramCalibrator,
    _least_divergence,
    input_quantizer,
    weight_quantizer,
)


def sample(kind: str, size: int = 40_000, seed: int = 0) -> torch.Tensor:
    """Values like a sparse feature map's: half zero after a ReLU, heavy-tailed, or two-sided."""
    rng = np.random.default_rng(seed)
    values = {
        "relu": lambda: np.maximum(rng.standard_normal(size), 0),
        "heavy": lambda: rng.standard_t(2.5, size),
        "uniform": lambda: rng.uniform(-3, 3, size),
        "exponential": lambda: rng.exponential(0.01, size),
    }[kind]()
    return torch.from_numpy(values.astype(np.float32))


KINDS = ("relu", "heavy", "uniform", "exponential")


def collected(*values: torch.Tensor, num_bins: int = 2048) -> SparseHistogramCalibrator:
    calibrator = SparseHistogramCalibrator(num_bins=num_bins)
    for value in values:
        calibrator.collect(value)
    return calibrator


@pytest.mark.parametrize("kind", KINDS)
def test_one_frame_has_the_counts_of_the_original_calibrator(kind: str) -> None:
    x = sample(kind)
    original = HistogramCalibrator(skip_zeros=True)
    original.collect(x)
    ours = collected(x)
    theirs = original._calib_hist.numpy().astype(np.int64)
    assert ours._calib_hist.sum() == theirs.sum()
    # The original places values in float32, so that one on an edge may be in the neighbouring bin.
    assert np.abs(np.cumsum(ours._calib_hist) - np.cumsum(theirs)).max() <= 1
    np.testing.assert_allclose(ours._calib_bin_edges, original._calib_bin_edges.numpy(), rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("percentile", [90.0, 99.0, 99.99])
def test_percentile_is_within_one_bin_of_the_sorted_non_zero_magnitudes(kind: str, percentile: float) -> None:
    x = sample(kind)
    magnitudes = np.sort(np.abs(x.numpy()[x.numpy() != 0]))
    exact = magnitudes[int(np.ceil(percentile / 100 * len(magnitudes))) - 1]
    calibrator = collected(x)
    assert abs(float(calibrator.compute_amax("percentile", percentile=percentile)) - exact) <= (
        1.001 * calibrator._width
    )


def brute_force_mse(hist: np.ndarray, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Candidates (bin centres from bin 128 on) and the squared error of each, from the definition."""
    centers = (edges[1:].astype(np.float64) + edges[:-1]) / 2
    candidates = centers[128:]
    errors = []
    for amax in candidates:
        q = np.clip(np.rint(centers * (127 / amax)), -127, 127) * (amax / 127)
        errors.append(((q - centers) ** 2 * hist).sum())
    return candidates, np.array(errors)


@pytest.mark.parametrize("kind", KINDS)
def test_mse_minimises_the_histograms_squared_error(kind: str) -> None:
    x = sample(kind)
    calibrator = collected(x)
    amax = float(calibrator.compute_amax("mse"))
    candidates, errors = brute_force_mse(calibrator._calib_hist, calibrator._calib_bin_edges)
    chosen = int(np.argmin(np.abs(candidates - amax)))
    assert candidates[chosen] == pytest.approx(amax, rel=1e-6)
    assert errors[chosen] <= errors.min() * (1 + 1e-6)
    assert 0 < amax <= float(x.abs().max())


def test_mse_clips_a_heavy_tail_and_beats_the_maximum_on_the_values_themselves() -> None:
    x = sample("heavy")
    amax = float(collected(x).compute_amax("mse"))

    def error(range_: float) -> float:
        q = torch.clamp((x * (127 / range_)).round(), -128, 127) * (range_ / 127)
        return float((q - x).double().square().sum())

    assert amax < 0.9 * float(x.abs().max())
    assert error(amax) < 0.95 * error(float(x.abs().max()))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_bins", [256, 300])
def test_entropy_agrees_with_the_original_search(kind: str, num_bins: int) -> None:
    calibrator = collected(sample(kind, 5_000, seed=num_bins), num_bins=num_bins)
    expected = _compute_amax_entropy(
        calibrator._calib_hist.astype(np.int32), calibrator._calib_bin_edges, 8, False
    )
    assert float(calibrator.compute_amax("entropy")) == float(expected)


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
    # Trailing empty bins make equal minima, between which rounding decides in the original: compare
    # divergences.
    rng = np.random.default_rng(5)
    for trial in range(6):
        calibrator = SparseHistogramCalibrator(num_bins=256)
        hist = rng.poisson(3.0 / (1 + np.arange(256) / 20)).astype(np.int64) * rng.integers(0, 2, 256)
        hist[1], hist[-1] = 4 * (trial % 3), trial % 2
        calibrator._calib_hist, calibrator._width = hist, 0.125
        calibrator._calib_bin_edges = (np.arange(257) * 0.125).astype(np.float32)
        divergences = brute_force_divergences(hist)
        original = _compute_amax_entropy(hist.astype(np.int32), calibrator._calib_bin_edges, 8, False)
        ours = float(calibrator.compute_amax("entropy"))
        chosen, theirs = (divergences[round(amax / 0.125) - 128] for amax in (ours, float(original)))
        assert np.isfinite(divergences).any()
        assert chosen == pytest.approx(divergences.min(), rel=1e-9)
        assert theirs == pytest.approx(divergences.min(), rel=1e-9)


def test_entropy_takes_the_first_bin_for_its_neighbour_and_the_last_of_equal_minima() -> None:
    # Bins 0 and 1 filled: every number of kept bins below 256 represents them exactly, so the last candidate
    # wins.
    candidates = np.arange(128, 201)
    for first in (0, 5, 10**9):
        hist = np.zeros(200, np.int64)
        hist[:2] = first, 5
        assert _least_divergence(hist, candidates) == len(candidates) - 1


def test_frames_add_up_whatever_their_order_of_magnitude() -> None:
    frames = [sample("relu", 5_000, seed) * scale for seed, scale in enumerate((1.0, 0.1, 2.5, 1.5))]
    calibrator = collected(*frames)
    everything = torch.cat(frames).numpy()
    assert calibrator._calib_hist.sum() == np.count_nonzero(everything)
    edges = calibrator._calib_bin_edges
    assert edges[-1] >= everything.max()
    assert np.all(np.abs(np.cumsum(np.histogram(everything[everything != 0], edges)[0]) -
                         np.cumsum(calibrator._calib_hist)) <= 2)  # fmt: skip


def test_a_far_wider_frame_merges_bins_instead_of_adding_millions() -> None:
    calibrator = collected(sample("relu", 1_000) * 1e-3, sample("relu", 1_000, 1) * 1e4)
    assert len(calibrator._calib_hist) <= 4 * 2048
    assert calibrator._calib_hist.sum() == 1_000 - int((sample("relu", 1_000) == 0).sum()) + int(
        (sample("relu", 1_000, 1) > 0).sum()
    )
    assert float(calibrator.compute_amax("mse")) <= 1e4 * float(sample("relu", 1_000, 1).max())


def test_zeros_are_not_counted_and_all_zero_frames_leave_no_trace() -> None:
    x = sample("uniform", 2_000)
    with_zeros = collected(
        torch.zeros(50), torch.cat([x, torch.zeros(10_000)]), torch.zeros(0), torch.zeros(7)
    )
    for method in ("percentile", "mse", "entropy"):
        assert with_zeros.compute_amax(method) == collected(x).compute_amax(method)
    assert collected(torch.zeros(50)).compute_amax("mse") is None


def test_counts_beyond_the_float32_limit_are_exact() -> None:
    calibrator = SparseHistogramCalibrator()
    x = torch.full((1 << 20,), 1.0)
    for _ in range(17):  # 17 Mi > 2^24
        calibrator.collect(x)
    assert calibrator._calib_hist.sum() == 17 << 20


def test_the_search_does_not_depend_on_the_unit_of_the_values() -> None:
    # The original treats an amax below 2^-24 as zero.
    x = sample("heavy", 10_000)
    for method in ("mse", "entropy", "percentile"):
        tiny = float(collected(x * 2.0**-40).compute_amax(method))
        assert tiny * 2.0**40 == float(collected(x).compute_amax(method))


def test_quantizers_only_collect() -> None:
    x = sample("uniform", 1_000)
    for quantizer in (input_quantizer("max"), input_quantizer("histogram", 512)):
        assert torch.equal(quantizer(x), x)
    quantizer = input_quantizer("max")
    quantizer(x)
    quantizer(-2 * x)
    quantizer.load_calib_amax()
    assert float(quantizer.amax) == 2 * float(x.abs().max())
    weight = torch.randn(6, 3, 3, 3, 4)
    quantizer = weight_quantizer()
    quantizer(weight)
    quantizer.load_calib_amax()
    assert torch.equal(quantizer.amax.flatten(), weight.abs().amax(dim=(1, 2, 3, 4)))
