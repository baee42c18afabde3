# SPDX-License-Identifier: Apache-2.0
"""Both ranges of an Add before a ReLU, chosen together by the error of max(a + b, 0).

Within a cell of a `PairHistogram` the operands count as independent and uniform. The rounding error of a
uniform value has closed forms for its mean and its mean square, so that a candidate range costs one table
row; whether the sum of a cell survives the ReLU is decided by the cell's mean.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from scn_fx.quant.pairs import CODES, LEVELS, PairHistogram

__all__ = ["PairError"]

_Floats = npt.NDArray[np.float64]

# Candidates: from this share of the largest magnitude, in steps of this ratio, refined by its eighth root.
_SMALLEST = 0.015
_RATIO = 1.15
_ROUNDS = 4

# Cells that are worked on at a time, so that the temporaries stay in the cache.
_CELLS = 1024


class PairError:
    """The expected squared error of max(a + b, 0) for pairs of ranges, over the pairs of a histogram.

    Attributes:
        pairs: number of pairs in cells whose sum can become positive.
    """

    def __init__(self, histogram: PairHistogram) -> None:
        self._edges = [histogram.edges(operand) for operand in (0, 1)]
        low, high = (
            np.stack([_signed(edges[side:][: LEVELS + 1]) for edges in self._edges]) for side in (0, 1)
        )
        high[:, LEVELS] = 0.0  # the code of zero
        centers, halves = (low + high) / 2, np.abs(high - low) / 2
        # Where neither operand is positive no range makes the sum positive.
        counts = histogram.counts.copy()
        counts[: LEVELS + 1, : LEVELS + 1] = 0
        self._a, self._b = counts.nonzero()
        self._counts = counts[self._a, self._b].astype(np.float64)
        self.pairs = int(counts.sum())
        self._sums = centers[0][self._a] + centers[1][self._b]
        spread = halves[0][self._a] + halves[1][self._b]
        # The share of the cell whose sum is positive, as if the sum were uniform.
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.clip(0.5 + self._sums / (2 * spread), 0.0, 1.0)
        self._share = np.where(spread > 0, share, self._sums > 0)

    def __call__(self, ranges: tuple[float, float]) -> float:
        """The sum of the squared errors of all pairs for one pair of ranges."""
        tables = [self._table(k, np.array([ranges[k]])) for k in (0, 1)]
        return float(self._errors(tables[0], tables[1])[0])

    def best(
        self,
        start: tuple[float, float],
        largest: tuple[float, float],
        fixed: tuple[bool, bool] = (False, False),
    ) -> tuple[float, float]:
        """The ranges of least error, by turns, from `start` on; those that are `fixed` keep their start.

        `largest` holds the largest magnitudes that matter: no range exceeds them.
        """
        ranges = list(start)
        free = [k for k in (0, 1) if not fixed[k] and largest[k] > 0]
        for step in range(_ROUNDS):
            before = list(ranges)
            for k in free:
                ranges[k] = self._line(k, ranges, largest[k], fine=step > 0)
            if ranges == before and step > 0:
                break
        return ranges[0], ranges[1]

    def _line(self, k: int, ranges: list[float], largest: float, fine: bool) -> float:
        """The best range of operand k while the other stays."""
        if fine:
            candidates = ranges[k] * _RATIO ** (np.arange(-8, 9) / 8)
        else:
            candidates = largest * _RATIO ** -np.arange(0.0, np.log(1 / _SMALLEST) / np.log(_RATIO))
        candidates = np.unique(np.clip(np.append(candidates, ranges[k]), largest * _SMALLEST, largest))
        tables = [self._table(k, candidates), self._table(1 - k, np.array([ranges[1 - k]]))]
        return float(candidates[int(np.argmin(self._errors(*(tables if k == 0 else tables[::-1]))))])

    def _table(self, operand: int, ranges: _Floats) -> tuple[_Floats, _Floats]:
        """Mean and mean square of the rounding error of each code: two float64 [ranges, CODES]."""
        edges = self._edges[operand]
        mean, square = np.zeros((2, len(ranges), CODES))
        for top, codes in ((127, slice(LEVELS + 1, None)), (128, slice(LEVELS - 1, None, -1))):
            first, second = _moments(edges[1:], ranges, top)
            mean[:, codes] = first if top == 127 else -first
            square[:, codes] = second
        return mean, square

    def _errors(self, of_a: tuple[_Floats, _Floats], of_b: tuple[_Floats, _Floats]) -> _Floats:
        """Sum of squared errors for each row of the tables (one of which may have one row for all)."""
        total = np.zeros(max(len(of_a[0]), len(of_b[0])))
        for start in range(0, len(self._counts), _CELLS):
            cells = slice(start, start + _CELLS)
            a, b, sums, share = (part[cells] for part in (self._a, self._b, self._sums, self._share))
            (mean_a, square_a), (mean_b, square_b) = (
                [table.take(codes, axis=1) for table in tables] for tables, codes in ((of_a, a), (of_b, b))
            )
            shifted = sums + (mean_a + mean_b)
            full = square_a + square_b + 2 * mean_a * mean_b
            # A sum that clipping has driven below zero loses all of it; one that it has lifted is all error.
            kept = np.where(shifted > 0, full, sums**2)
            lifted = np.maximum(shifted, 0.0) ** 2
            total += (share * kept + (1 - share) * lifted) @ self._counts[cells]
        return total


def _signed(magnitudes: _Floats) -> _Floats:
    """Magnitudes of the levels from 0 up, for the codes from the lowest negative to the highest positive."""
    return np.concatenate([-magnitudes[:0:-1], magnitudes])


def _moments(edges: _Floats, ranges: _Floats, top: int) -> tuple[_Floats, _Floats]:
    """Mean of q(v) - v and of its square for v uniform between neighbouring edges: [ranges, edges - 1].

    With u = v / s, n = min(round(u), top) and d = u - n, the integrals from 0 to u of n - u and of its square
    are -d^2 / 2 and n / 12 + d^3 / 3: whole steps add 0 and 1 / 12, and beyond the top d grows.
    """
    steps = (ranges / 127)[:, None]
    u = edges / steps
    n = np.minimum(np.rint(u), top)
    d = u - n
    width = np.diff(u, axis=1)
    mean = np.diff(-(d**2) / 2, axis=1) / width
    square = np.diff(n / 12 + d**3 / 3, axis=1) / width
    return mean * steps, square * steps**2
