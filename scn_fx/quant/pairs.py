# SPDX-License-Identifier: Apache-2.0
"""Counts of the pairs of operands of an Add, in cells of an eighth of an octave.

What an Add's rounding does to the sum behind its activation depends on both operands together, so their
histograms apart do not tell. A cell is a float32 number's sign, exponent and first three bits of mantissa;
what lies more than `OCTAVES` octaves below an operand's largest magnitude counts as zero (no range that can
be chosen has a step so small). As in `quant.histogram`, the counts depend on the multiset of pairs alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

__all__ = ["CODES", "LEVELS", "OCTAVES", "PairHistogram"]

OCTAVES = 16
_STEPS = 8
LEVELS = OCTAVES * _STEPS
"""Cells of one sign. Code LEVELS is zero, LEVELS + l the l-th positive cell, LEVELS - l the negative one."""

CODES = 2 * LEVELS + 1

# Bits of a float32 below the three first of its mantissa.
_SHIFT = 20
_CHUNK = 1 << 17

Counts = npt.NDArray[np.int64]


class PairHistogram:
    """Counts of pairs (a, b) over any number of tensor pairs.

    Attributes:
        counts: int64 [CODES, CODES], by the codes of a and b.
    """

    def __init__(self) -> None:
        self.counts: Counts = np.zeros((CODES, CODES), np.int64)
        # The float32 prefix of the cell that holds each operand's largest magnitude.
        self._tops = [0, 0]

    def collect(self, a: torch.Tensor, b: torch.Tensor) -> None:
        """Count the pairs of two finite tensors of one shape and device, any float dtype."""
        if a.numel() == 0:
            return
        flat = [operand.detach().float().contiguous().reshape(-1) for operand in (a, b)]
        self._cover([_prefix(max(-float(low), float(high))) for low, high in (x.aminmax() for x in flat)])
        if flat[0].is_cuda:
            import torch

            first, second = (self._codes(x.view(torch.int32), k) for k, x in enumerate(flat))
            counts = torch.bincount(first * CODES + second, minlength=CODES * CODES).cpu().numpy()
            self.counts += counts.reshape(CODES, CODES)
            return
        pair = [x.numpy().view(np.int32) for x in flat]
        joined = self.counts.reshape(-1)
        for start in range(0, pair[0].size, _CHUNK):
            first, second = (self._codes(x[start : start + _CHUNK], k) for k, x in enumerate(pair))
            first *= CODES
            first += second
            joined += np.bincount(first, minlength=len(joined))

    def merge(self, other: PairHistogram) -> None:
        """Add the counts of another histogram, which stays as it is."""
        self._cover(other._tops)
        drops = [mine - theirs for mine, theirs in zip(self._bases, other._bases, strict=True)]
        self.counts += _lowered(other.counts, drops)

    def edges(self, operand: int) -> npt.NDArray[np.float64]:
        """float64 [LEVELS + 2]: level l >= 1 of operand 0 or 1 is the magnitudes from edges[l] to edges[l+1].

        edges[0] is 0: level 0 is zero and what counts as zero.
        """
        prefixes = self._bases[operand] + np.arange(1, LEVELS + 2)
        bits = (prefixes.astype(np.int64) << _SHIFT).astype(np.int32)
        return np.concatenate([[0.0], bits.view(np.float32).astype(np.float64)])

    def state(self) -> dict[str, Any]:
        """All of it as numpy arrays and plain numbers; `from_state` takes them back."""
        return {"tops": list(self._tops), "counts": self.counts}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> PairHistogram:
        """The histogram of a `state`. Raises ValueError if it is none that pairs can have made."""
        made = cls()
        made._tops = [int(top) for top in state["tops"]]
        counts = np.asarray(state["counts"])
        if counts.shape != made.counts.shape or counts.dtype != np.int64 or counts.min() < 0:
            raise ValueError("the counts have another shape or type, or are negative")
        if len(made._tops) != 2 or not all(0 <= top < 0xFF << 3 for top in made._tops):
            raise ValueError("the largest cells are no finite float32 numbers")
        made.counts = counts.copy()
        return made

    @property
    def _bases(self) -> list[int]:
        """The prefix of each operand that is level 0."""
        return [max(top - LEVELS, 0) for top in self._tops]

    def _cover(self, tops: list[int]) -> None:
        before = self._bases
        self._tops = [max(pair) for pair in zip(self._tops, tops, strict=True)]
        drops = [now - then for now, then in zip(self._bases, before, strict=True)]
        self.counts = _lowered(self.counts, drops)

    def _codes(self, bits: Any, operand: int) -> Any:
        """Codes of float32 values, given as an int32 numpy array or tensor of their bits."""
        levels = (bits & 0x7FFFFFFF) >> _SHIFT
        levels -= self._bases[operand]
        levels = levels.clip(0)
        levels *= (bits >> 31) | 1
        levels += LEVELS
        return levels


def _prefix(magnitude: float) -> int:
    return int(np.float32(magnitude).view(np.int32)) >> _SHIFT


def _lowered(counts: Counts, drops: list[int]) -> Counts:
    """`counts` with each operand's levels lowered by so many; what falls below level 1 counts as zero."""
    for axis, drop in enumerate(drops):
        if drop == 0:
            continue
        drop = min(drop, LEVELS)
        given = counts if axis == 0 else counts.T
        moved = np.zeros_like(given)
        moved[drop:LEVELS] = given[: LEVELS - drop]
        moved[LEVELS] = given[LEVELS - drop : LEVELS + drop + 1].sum(axis=0)
        moved[LEVELS + 1 : CODES - drop] = given[LEVELS + drop + 1 :]
        counts = moved if axis == 0 else np.ascontiguousarray(moved.T)
    return counts
