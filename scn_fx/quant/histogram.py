# SPDX-License-Identifier: Apache-2.0
"""Counts of a value's magnitudes in bins whose width is a power of two.

The width is the largest power of two that leaves at least `num_bins` bins below the largest magnitude. When a
larger value comes, the width doubles and pairs of bins are merged, which gives exactly the counts that the
wider bins would have had from the start. So the counts depend on the multiset of values alone: not on their
order, not on how they were divided into frames, and not on the processes that counted them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

__all__ = ["MagnitudeHistogram"]

# Values that are binned at a time, so that the temporaries stay in the cache.
_CHUNK = 1 << 17

# No range below 2^-100 can be used (see `scn_fx.ranges`), so finer bins than this serve nothing, and its
# inverse is still a float32 number.
_FINEST = -126

Counts = npt.NDArray[np.int64]


class MagnitudeHistogram:
    """Counts of negative and of positive magnitudes, and of zeros, over any number of tensors.

    Zeros are apart because they are exact under every range: half of a sparse map or more is zero after a
    ReLU, and would shift every percentile.

    Attributes:
        num_bins: least number of bins below the largest magnitude; at most twice as many are used.
        counts: int64 [2, 2 num_bins]: negative magnitudes, positive magnitudes. Bin i holds the magnitudes
            from i to (i + 1) widths, the lower edge included.
        zeros: number of values that are zero.
        smallest, largest: the extremes of all values, exactly; 0.0 where none lies on that side of zero.
    """

    def __init__(self, num_bins: int = 2048) -> None:
        self.num_bins = num_bins
        self.counts: Counts = np.zeros((2, 2 * num_bins), np.int64)
        self.zeros = 0
        self.smallest = 0.0
        self.largest = 0.0
        self._exponent = _FINEST

    @property
    def width(self) -> float:
        """Width of a bin."""
        return math.ldexp(1.0, self._exponent)

    @property
    def magnitude(self) -> float:
        """Largest magnitude of all values."""
        return max(-self.smallest, self.largest)

    @property
    def nonzero(self) -> int:
        """Number of values that are not zero."""
        return int(self.counts.sum())

    def magnitudes(self) -> Counts:
        """int64 [bins]: counts of both signs together, up to the bin of the largest magnitude."""
        return self.counts[:, : self.used].sum(axis=0)

    @property
    def used(self) -> int:
        """Number of bins up to that of the largest magnitude."""
        return int(math.ldexp(self.magnitude, -self._exponent)) + 1

    def beyond(self, magnitude: float) -> int:
        """Number of values in bins that lie wholly beyond a magnitude."""
        first = math.ceil(math.ldexp(magnitude, -self._exponent))
        return int(self.counts[:, first:].sum())

    def collect(self, value: torch.Tensor) -> None:
        """Count the values of a finite tensor of any shape, float dtype and device."""
        if value.numel() == 0:
            return
        flat = value.detach().float().reshape(-1)
        if flat.is_cuda:
            low, high = (float(extreme) for extreme in flat.aminmax())
            self._cover(low, high)
            self._count_on_device(flat, low, high)
        else:
            self.collect_array(flat.numpy())

    def collect_array(self, values: npt.NDArray[np.floating[Any]]) -> None:
        """The same for a finite numpy array; needs no torch."""
        if values.size == 0:
            return
        flat = values.astype(np.float32, copy=False).reshape(-1)
        self._cover(float(flat.min()), float(flat.max()))
        self._count(flat)

    def merge(self, other: MagnitudeHistogram) -> None:
        """Add the counts of another histogram of the same `num_bins`; the other stays as it is."""
        self._cover(other.smallest, other.largest)
        self.counts += _merged(other.counts, self._exponent - other._exponent)
        self.zeros += other.zeros

    def state(self) -> dict[str, Any]:
        """All of it as numpy arrays and plain numbers; `from_state` takes them back."""
        return {
            "num_bins": self.num_bins,
            "exponent": self._exponent,
            "zeros": self.zeros,
            "extremes": [self.smallest, self.largest],
            "counts": self.counts,
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> MagnitudeHistogram:
        """The histogram of a `state`. Raises ValueError if it is none that values can have made."""
        made = cls(int(state["num_bins"]))
        made.smallest, made.largest = (float(extreme) for extreme in state["extremes"])
        made._exponent = int(state["exponent"])
        made.zeros = int(state["zeros"])
        counts = np.asarray(state["counts"])
        if counts.shape != made.counts.shape or counts.dtype != np.int64 or counts.min(initial=0) < 0:
            raise ValueError("the counts have another shape or type, or are negative")
        if not (math.isfinite(made.magnitude) and made.smallest <= 0 <= made.largest and made.zeros >= 0):
            raise ValueError("the extremes do not enclose zero")
        if made._exponent != _exponent(made.magnitude, made.num_bins) or counts[:, made.used :].any():
            raise ValueError("width, extremes and counts contradict each other")
        made.counts = counts.copy()
        return made

    def _cover(self, low: float, high: float) -> None:
        """Take the extremes in, and widen the bins if they need it."""
        self.smallest, self.largest = min(self.smallest, low), max(self.largest, high)
        exponent = max(self._exponent, _exponent(self.magnitude, self.num_bins))
        self.counts = _merged(self.counts, exponent - self._exponent)
        self._exponent = exponent

    def _count(self, values: npt.NDArray[np.float32]) -> None:
        # Conversion to integers truncates, so that bin 0 takes small values of both signs and the zeros;
        # counting those apart settles what belongs where.
        scale = np.float32(math.ldexp(1.0, -self._exponent))
        middle = 2 * self.num_bins - 1
        joined = np.zeros(2 * middle + 1, np.int64)
        negative = zeros = 0
        for start in range(0, values.size, _CHUNK):
            piece = values[start : start + _CHUNK]
            position = (piece * scale).astype(np.int64)
            position += middle
            joined += np.bincount(position, minlength=len(joined))
            negative += int(np.count_nonzero(piece < 0))
            zeros += int(np.count_nonzero(piece == 0))
        below, above = joined[:middle][::-1], joined[middle + 1 :]
        self.counts[0, 1:] += below
        self.counts[1, 1:] += above
        first = negative - int(below.sum())
        self.counts[0, 0] += first
        self.counts[1, 0] += int(joined[middle]) - first - zeros
        self.zeros += zeros

    def _count_on_device(self, values: torch.Tensor, low: float, high: float) -> None:
        # The signs apart and without zeros: the bins of one sign fit in a block's shared memory, and no bin
        # takes half of all values, which would make the atomic additions wait for each other.
        import torch

        scale = math.ldexp(1.0, -self._exponent)
        rest = values.numel()
        for row, present, sign in ((0, low < 0, -1.0), (1, high > 0, 1.0)):
            if present:
                kept = values[values < 0] if row == 0 else values[values > 0]
                position = (kept * (sign * scale)).to(torch.int32)
                self.counts[row] += torch.bincount(position, minlength=self.counts.shape[1]).cpu().numpy()
                rest -= kept.numel()
        self.zeros += rest


def _exponent(magnitude: float, num_bins: int) -> int:
    """The largest k with num_bins 2^k <= magnitude, but at least `_FINEST`."""
    if magnitude == 0.0:
        return _FINEST
    exponent = math.frexp(magnitude)[1] - num_bins.bit_length()  # at most one too large
    if math.ldexp(num_bins, exponent) > magnitude:
        exponent -= 1
    return max(exponent, _FINEST)


def _merged(counts: Counts, doublings: int) -> Counts:
    """`counts` for a width that has doubled so many times, in an array of the same size."""
    if doublings == 0:
        return counts
    bins = counts.shape[1]
    factor = 1 << min(doublings, bins.bit_length())
    starts = np.arange(0, bins, factor)
    merged = np.zeros_like(counts)
    merged[:, : len(starts)] = np.add.reduceat(counts, starts, axis=1)
    return merged
