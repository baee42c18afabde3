# SPDX-License-Identifier: Apache-2.0
"""The range of one value from its histogram, by each of the methods.

The searches are those that TensorRT, pytorch-quantization and modelopt have made usual: bins stand for their
centre (mse) or are regrouped into 128 levels (entropy), and candidates start at bin 128. They are written
with prefix sums, so that a value costs hundredths of a second.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from scn_fx.quant.histogram import MagnitudeHistogram

__all__ = ["RULES", "by_entropy", "by_max", "by_mse", "by_percentile", "range_of"]

# A range of fewer bins than levels could not be told from a finer one.
_FIRST_BIN = 128

_Counts = npt.NDArray[np.int64]
_Positions = npt.NDArray[np.int64]


def range_of(histogram: MagnitudeHistogram, method: str, percentile: float = 99.99) -> float:
    """The range that `method` takes, at most the largest magnitude; 0.0 if there are only zeros.

    `percentile` is for the method of that name, in percent.
    """
    if histogram.magnitude == 0.0:
        return 0.0
    return min(RULES[method](histogram, percentile), histogram.magnitude)


def by_max(histogram: MagnitudeHistogram, _percentile: float = 0.0) -> float:
    """The largest magnitude."""
    return histogram.magnitude


def by_percentile(histogram: MagnitudeHistogram, percentile: float) -> float:
    """Upper edge of the bin in which that percentile of the non-zero magnitudes lies."""
    counts = histogram.magnitudes().cumsum()
    position = int(np.searchsorted(counts, counts[-1] * (percentile / 100)))
    return min(position + 1, len(counts)) * histogram.width


def by_mse(histogram: MagnitudeHistogram, _percentile: float = 0.0) -> float:
    """Centre of the bin that, as range, quantises the histogram with the least squared error."""
    used = histogram.used
    candidates = np.arange(min(_FIRST_BIN, used - 1), used)
    # -128 is a level of its own: a negative value may lie a 127th beyond the range.
    signs = [(histogram.counts[row, :used], top) for row, top in ((0, 128), (1, 127))]
    gains = [_mse_gain(counts, candidates, top) for counts, top in signs if counts.any()]
    return float(candidates[int(np.argmax(sum(gains)))] + 0.5) * histogram.width


def by_entropy(histogram: MagnitudeHistogram, _percentile: float = 0.0) -> float:
    """Bin edge of the least Kullback-Leibler divergence between the magnitudes and their 128 levels."""
    counts = histogram.magnitudes()
    if len(counts) <= _FIRST_BIN:  # values next to float32's smallest; `checked_range` refuses such a range
        return histogram.magnitude
    candidates = np.arange(_FIRST_BIN, len(counts) + 1)
    return float(candidates[_least_divergence(counts, candidates)]) * histogram.width


RULES: Mapping[str, Callable[[MagnitudeHistogram, float], float]] = MappingProxyType(
    {"max": by_max, "percentile": by_percentile, "mse": by_mse, "entropy": by_entropy}
)
"""The rule of each method: a histogram with values other than zero, and the percentile, to a range."""


def _mse_gain(counts: _Counts, candidates: _Positions, top: int) -> npt.NDArray[np.float64]:
    """For each candidate (its centre as range) the squared error of one sign that quantisation saves.

    Each bin stands for its centre c, in units of the bin width. With the step s = range / 127, level l takes
    the centres nearest to l s, the level `top` also all beyond. The squared error, sum n (c - l s)^2, is sum
    n c^2, the same for all candidates, less sum over levels of 2 l s sum(n c) - (l s)^2 sum(n), whose inner
    sums are differences of prefix sums. (Where a centre lies midway between two levels, either gives the same
    error.)
    """
    centers = np.arange(len(counts)) + 0.5
    sums = np.concatenate([[0.0], np.cumsum(counts, dtype=np.float64)])
    moments = np.concatenate([[0.0], np.cumsum(counts * centers)])
    steps = (candidates[:, None] + 0.5) / 127
    values = np.arange(top + 1) * steps
    # Bins whose centre is below the upper bound (l + 1/2) s of each level but the last, which has none.
    upper = np.ceil((np.arange(top) + 0.5) * steps - 0.5).astype(np.int64)
    bounds = np.pad(np.minimum(upper, len(counts)), ((0, 0), (1, 1)))
    bounds[:, -1] = len(counts)
    gain = 2 * values * np.diff(moments[bounds], axis=1) - values**2 * np.diff(sums[bounds], axis=1)
    return np.asarray(gain.sum(axis=1))


def _least_divergence(counts: _Counts, candidates: _Positions, levels: int = 128) -> int:
    """Position in `candidates` of the bin edge of least Kullback-Leibler divergence of the quantised bins.

    With the first i bins kept: the reference P is those counts, the clipped rest added to the last one; Q
    spreads the sum of each of the 128 groups of bins (group of bin j: floor(128 j / i)) over the group's
    non-empty bins; both are normalised. As usual, bin 0 counts like bin 1, and the last of equal minima wins.
    With S(n) the prefix sums of the counts, sum P log Q collapses to one term per group, so that a candidate
    costs 128 steps.
    """
    bins = counts.astype(np.float64)
    bins[0] = bins[1]
    total = bins.sum()
    if total == 0:
        return len(candidates) - 1
    sums = np.concatenate([[0.0], np.cumsum(bins)])
    filled = np.concatenate([[0], np.cumsum(bins > 0)])
    p_log_p = np.concatenate([[0.0], np.cumsum(_x_log_x(bins))])
    # Group g of candidate i is the bins ceil(g i / 128) ... ceil((g + 1) i / 128) - 1.
    bounds = -(-np.arange(levels + 1)[None, :] * candidates[:, None] // levels)
    group_sums = np.diff(sums[bounds], axis=1)
    group_means = group_sums / np.maximum(np.diff(filled[bounds], axis=1), 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        log_means = np.where(group_sums > 0, np.log(group_means), 0.0)
        last = bins[candidates - 1]
        tail = total - sums[candidates]
        q_log = (group_sums * log_means).sum(axis=1)
        # The clipped counts sit in the last bin; where that bin was empty, Q is zero under them.
        clipped = np.where(tail > 0, np.where(last > 0, tail * log_means[:, -1], -np.inf), 0.0)
        p_log = p_log_p[candidates - 1] + _x_log_x(last + tail)
        divergence = (p_log - q_log - clipped) / total - np.log(total) + np.log(sums[candidates])
    divergence = np.nan_to_num(divergence, nan=np.inf)
    least = divergence.min()
    # Rounding noise of the two sums must not decide between equal minima.
    return int(np.flatnonzero(divergence <= least + 1e-12 * max(1.0, abs(np.log(total))))[-1])


def _x_log_x(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(x * np.log(np.where(x > 0, x, 1.0)))
