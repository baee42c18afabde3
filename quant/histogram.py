# SPDX-License-Identifier: Apache-2.0
"""modelopt's quantizers as calibration uses them. Importing this module imports modelopt (several seconds).

`SparseHistogramCalibrator` is modelopt's HistogramCalibrator (|x| in bins, amax by percentile, mse or
entropy) where the original (read in 0.47) does not serve sparse feature maps:

- its mse search passes `num_bits` where `fake_tensor_quant` takes a bias by now, and so always returns the
  smallest candidate; here the same candidates are searched by the error that was meant;
- its counts are float32 (they stop at 2^24 per bin) and narrow to int32; here they are int64;
- after a frame with a tiny maximum it allocates as many bins as a wider frame needs at the first one's width,
  and it fails after an all-zero frame; here bins are merged in pairs beyond a limit;
- its searches quantise every bin for every candidate (for one value 0.3 s by mse, 3 s by entropy); here the
  same sums come from prefix sums (some hundredths of a second).
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from modelopt.torch.quantization.calib import HistogramCalibrator
from modelopt.torch.quantization.config import QuantizerAttributeConfig
from modelopt.torch.quantization.nn import TensorQuantizer

__all__ = ["SparseHistogramCalibrator", "input_quantizer", "weight_quantizer"]

# Values that are binned at a time, so that the temporaries stay in the cache.
_CHUNK = 1 << 17

# A later, wider frame adds bins of the first frame's width up to this multiple of their number.
_GROWTH = 4


class SparseHistogramCalibrator(HistogramCalibrator):
    """Histogram of the non-zero magnitudes of a value over all frames, and the amax that a method takes.

    Zeros are not counted: they are exact under every range, and the share of zeros in a sparse map (half or
    more after a ReLU) would otherwise shift the percentile.
    """

    _calib_hist: np.ndarray | None
    _calib_bin_edges: np.ndarray | None

    def __init__(self, num_bits: int = 8, axis: None = None, unsigned: bool = False, num_bins: int = 2048):
        super().__init__(num_bits, axis, unsigned, num_bins=num_bins, skip_zeros=True, torch_hist=True)
        self._width = 0.0

    @torch.no_grad()
    def collect(self, x: torch.Tensor) -> None:
        """Add the non-zero magnitudes of `x` (any shape, finite) to the histogram."""
        if x.numel() == 0:
            return
        low, high = torch.aminmax(x)
        amax = max(-float(low), float(high))
        if amax == 0.0:
            return
        self._cover(amax)
        assert self._calib_hist is not None
        bins = len(self._calib_hist)
        # numpy, since torch.histc takes three times as long for half-empty maps; float64, so that any width
        # serves.
        values = x.detach().float().cpu().numpy().ravel()
        for start in range(0, values.size, _CHUNK):
            piece = values[start : start + _CHUNK]
            position = np.abs(piece[piece != 0]) * np.float64(1 / self._width)
            counts = np.bincount(position.astype(np.int64), minlength=bins + 1)
            counts[bins - 1] += counts[bins]  # the largest value itself belongs to the last bin
            self._calib_hist += counts[:bins]

    def _cover(self, amax: float) -> None:
        """Make the bins reach `amax`: append bins, and merge pairs of bins where they get too many."""
        if self._calib_hist is None:
            self._calib_hist = np.zeros(self._num_bins, np.int64)
            self._width = amax / self._num_bins
        needed = int(np.ceil(amax / self._width))
        while needed > _GROWTH * self._num_bins:
            padded = np.append(self._calib_hist, np.zeros(len(self._calib_hist) % 2, np.int64))
            self._calib_hist = padded.reshape(-1, 2).sum(axis=1)
            self._width *= 2
            needed = int(np.ceil(amax / self._width))
        missing = max(needed, self._num_bins) - len(self._calib_hist)
        self._calib_hist = np.append(self._calib_hist, np.zeros(max(missing, 0), np.int64))
        self._calib_bin_edges = (np.arange(len(self._calib_hist) + 1) * self._width).astype(np.float32)

    def reset(self) -> None:
        """Forget all counts."""
        super().reset()
        self._width = 0.0

    def compute_amax(
        self, method: str, *, stride: int = 1, start_bin: int = 128, percentile: float = 99.99
    ) -> torch.Tensor | None:
        """amax as a float32 scalar by "percentile", "mse" or "entropy"; None if only zeros were collected.

        `stride` and `start_bin` select the candidates of mse and entropy, as in the base class.
        """
        hist, edges = self._calib_hist, self._calib_bin_edges
        if hist is None or edges is None:
            return None
        if method == "mse":
            chosen = start_bin + stride * _least_mse(hist, np.arange(start_bin, len(hist), stride))
            return torch.tensor((edges[chosen] + edges[chosen + 1]) / 2, dtype=torch.float32)
        if method == "entropy":
            chosen = start_bin + stride * _least_divergence(hist, np.arange(start_bin, len(hist) + 1, stride))
            return torch.tensor(edges[chosen], dtype=torch.float32)
        return super().compute_amax(method, stride=stride, start_bin=start_bin, percentile=percentile)


def _least_mse(hist: np.ndarray, candidates: np.ndarray, levels: int = 127) -> int:
    """Position in `candidates` (bin numbers) of the bin whose centre, as amax, quantises the histogram best.

    Each bin stands for its centre c, in units of the bin width. With the step s = amax / 127, level l takes
    the centres nearest to l s, the last level also all beyond. The squared error, sum n (c - l s)^2, is sum n
    c^2, the same for all candidates, less sum over levels of 2 l s sum(n c) - (l s)^2 sum(n), whose inner
    sums are differences of prefix sums. (Where a centre lies midway between two levels, either gives the same
    error.)
    """
    centers = np.arange(len(hist)) + 0.5
    counts = np.concatenate([[0.0], np.cumsum(hist, dtype=np.float64)])
    moments = np.concatenate([[0.0], np.cumsum(hist * centers)])
    steps = (candidates[:, None] + 0.5) / levels
    values = np.arange(levels + 1) * steps
    # Bins whose centre is below the upper bound (l + 1/2) s of each level but the last, which has none.
    upper = np.ceil((np.arange(levels) + 0.5) * steps - 0.5).astype(np.int64)
    bounds = np.pad(np.minimum(upper, len(hist)), ((0, 0), (1, 1)))
    bounds[:, -1] = len(hist)
    gain = 2 * values * np.diff(moments[bounds], axis=1) - values**2 * np.diff(counts[bounds], axis=1)
    return int(np.argmax(gain.sum(axis=1)))


def _least_divergence(hist: np.ndarray, candidates: np.ndarray, levels: int = 128) -> int:
    """Position in `candidates` of the bin edge of least Kullback-Leibler divergence of the quantised bins.

    With the first i bins kept: the reference P is those counts, the clipped rest added to the last one; Q
    spreads the sum of each of the 128 groups of bins (group of bin j: floor(128 j / i)) over the group's
    non-empty bins; both are normalised. As in the base class, bin 0 counts like bin 1, and the last of equal
    minima wins. With S(n) the prefix sums of the counts, sum P log Q collapses to one term per group, so that
    a candidate costs 128 steps.
    """
    bins = hist.astype(np.float64)
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


def _x_log_x(x: np.ndarray) -> np.ndarray:
    return x * np.log(np.where(x > 0, x, 1.0))


def input_quantizer(method: Literal["max", "histogram"], num_bins: int = 2048) -> TensorQuantizer:
    """A per-tensor int8 TensorQuantizer that only collects; its calibrator is max or a histogram."""
    return _collecting({"num_bits": 8, "axis": None, "calibrator": "max"}, method, num_bins)


def weight_quantizer() -> TensorQuantizer:
    """A per-output-channel (axis 0) int8 TensorQuantizer that only collects, by max."""
    return _collecting({"num_bits": 8, "axis": 0, "calibrator": "max"}, "max", 0)


def _collecting(attributes: dict[str, Any], method: str, num_bins: int) -> TensorQuantizer:
    if method == "histogram":
        attributes["calibrator"] = (SparseHistogramCalibrator, (8, None, False), {"num_bins": num_bins})
    quantizer = TensorQuantizer(QuantizerAttributeConfig(**attributes))
    quantizer.disable_quant()
    quantizer.enable_calib()
    return quantizer
