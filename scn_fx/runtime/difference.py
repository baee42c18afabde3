# SPDX-License-Identifier: Apache-2.0
"""How two arrays differ: similarity, errors, shares of equal values, and what is wrong with either."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from scn_fx.errors import CompareError
from scn_fx.runtime.host_arrays import as_numpy
from scn_fx.runtime.torch_arrays import is_torch

__all__ = ["BUCKETS", "ArrayDifference", "SiteMismatch", "align_sites", "compare_arrays"]

BUCKETS = (0.75, 0.5, 0.25)
"""Fractions of the largest difference above which values are counted, as libspconv's compare tool does."""

# Values per piece: float64 copies of one piece stay in the cache's reach, whatever the size of a dense map.
_PIECE = 1 << 20

Floats = npt.NDArray[np.floating[Any]]


class SiteMismatch(CompareError):
    """Two sparse results do not lie on the same sites."""


@dataclass(frozen=True)
class ArrayDifference:
    """Difference of a `reference` and a `result` of equal shape; sums over all values of all frames.

    NaN and infinite values are counted and left out of every sum: the metrics describe the other values.
    """

    count: int
    """Values compared."""
    equal: int
    """Values that are equal (-0 equals 0; NaN equals nothing)."""
    nonzero: int
    """Values that are not zero in at least one of the two."""
    equal_nonzero: int
    """Those of them that are equal."""
    identical: bool
    """Same dtype and same bits everywhere."""
    max_abs: float
    """Largest absolute difference."""
    above: tuple[int, ...]
    """Values whose difference exceeds 75 %, 50 % and 25 % of the largest one of their frame."""
    reference_nan: int
    result_nan: int
    reference_infinite: int
    result_infinite: int
    reference_nonzero: int
    result_nonzero: int
    sum_abs: float = field(repr=False)
    sum_error: float = field(repr=False)
    sum_product: float = field(repr=False)
    sum_reference: float = field(repr=False)
    sum_result: float = field(repr=False)

    @property
    def cosine(self) -> float:
        """Cosine of the angle between the two as vectors; 1 if both are zero, 0 if one is."""
        if self.identical or (self.sum_reference == 0.0 and self.sum_result == 0.0):
            return 1.0
        norm = math.sqrt(self.sum_reference) * math.sqrt(self.sum_result)
        return self.sum_product / norm if norm else 0.0

    @property
    def sqnr_db(self) -> float:
        """Signal to quantisation noise ratio in dB, 10 log10(Σ r² / Σ (r - x)²); infinite if all is equal."""
        if self.sum_error == 0.0:
            return math.inf
        return 10.0 * math.log10(self.sum_reference / self.sum_error) if self.sum_reference else -math.inf

    @property
    def mean_abs(self) -> float:
        """Mean absolute difference."""
        return self.sum_abs / self.count if self.count else 0.0

    @property
    def equal_share(self) -> float:
        """Share of equal values, 0 to 1."""
        return self.equal / self.count if self.count else 1.0

    @property
    def equal_nonzero_share(self) -> float:
        """Share of equal values among those that are not zero on both sides: sparse maps are mostly zero."""
        return self.equal_nonzero / self.nonzero if self.nonzero else 1.0

    @property
    def buckets(self) -> dict[str, float]:
        """Shares of values by absolute difference, in the classes of libspconv's compare tool."""
        count = max(self.count, 1)
        fractions = zip(BUCKETS, self.above, strict=True)
        shares = {f"> {fraction:.0%} of max": number / count for fraction, number in fractions}
        return {**shares, "> 0": (self.count - self.equal) / count, "= 0": self.equal / count}

    @property
    def faults(self) -> tuple[str, ...]:
        """What is wrong with either side by itself: NaN, infinite, or zero throughout."""
        found = []
        for side in ("reference", "result"):
            for what, text in (("nan", "NaN"), ("infinite", "infinite (overflowed)")):
                number = getattr(self, f"{side}_{what}")
                if number:
                    found.append(f"the {side} holds {number} {text} values")
            broken = getattr(self, f"{side}_nan") or getattr(self, f"{side}_infinite")
            if self.count and not broken and getattr(self, f"{side}_nonzero") == 0:
                found.append(f"the {side} is all zero")
        return tuple(found)

    def __add__(self, other: ArrayDifference) -> ArrayDifference:
        """Both together, as if they were one array (`above` keeps the largest difference of each part)."""
        merged: dict[str, Any] = {
            f.name: getattr(self, f.name) + getattr(other, f.name)
            for f in fields(self)
            if f.name not in ("identical", "max_abs", "above")
        }
        above = tuple(a + b for a, b in zip(self.above, other.above, strict=True))
        return ArrayDifference(
            identical=self.identical and other.identical,
            max_abs=max(self.max_abs, other.max_abs),
            above=above,
            **merged,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; an infinite SQNR is None."""
        sqnr = self.sqnr_db
        return {
            "count": self.count,
            "identical": self.identical,
            "cosine": self.cosine,
            "sqnr_db": sqnr if math.isfinite(sqnr) else None,
            "max_abs": self.max_abs,
            "mean_abs": self.mean_abs,
            "equal_share": self.equal_share,
            "equal_nonzero_share": self.equal_nonzero_share,
            "buckets": self.buckets,
            "faults": list(self.faults),
        }


def compare_arrays(reference: npt.ArrayLike, result: npt.ArrayLike, what: str = "arrays") -> ArrayDifference:
    """The difference of two arrays of numbers, dense or [N, C] with the same rows.

    Args:
        reference: what is right: SQNR takes its power as the signal.
        result: what is judged; any dtype, same shape (axes of length 1 aside).
        what: a name for messages.

    Raises:
        CompareError: the shapes differ, or an array holds no numbers.
        SiteError: a tensor that lies on another device, or has no values.
    """
    a, b = (_numbers(array, what) for array in (reference, result))
    if [n for n in a.shape if n != 1] != [n for n in b.shape if n != 1]:
        raise CompareError(
            f"{what}: expected two arrays of one shape, got {a.dtype.name} {list(a.shape)} and "
            f"{b.dtype.name} {list(b.shape)}. Check that both come from the same layer, frame and grid."
        )
    a, b = a.reshape(-1), b.reshape(-1)
    if _same_bits(a, b):
        return _identical(a)
    total = _total(a, b)
    if total.max_abs == 0.0:
        return total
    above = np.zeros(len(BUCKETS), np.int64)
    thresholds = [fraction * total.max_abs for fraction in BUCKETS]
    for begin in range(0, a.size, _PIECE):
        x, y = _finite_pairs(a[begin : begin + _PIECE], b[begin : begin + _PIECE])
        error = np.abs(x - y)
        above += [np.count_nonzero(error > threshold) for threshold in thresholds]
    return ArrayDifference(**{**_plain(total), "above": tuple(int(n) for n in above)})


def align_sites(
    reference: tuple[npt.NDArray[Any], npt.NDArray[np.int32]],
    result: tuple[npt.NDArray[Any], npt.NDArray[np.int32]],
    what: str = "sparse results",
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """The features [N, C] of two sparse results (features, indices) with rows in the same order.

    Indices are int32 [N, 4] (batch, z, y, x), or have fewer axes on both sides. Rows are sorted by site,
    unless both have the same order already. Raises `SiteMismatch` if sites differ.
    """
    (a, rows), (b, others) = reference, result
    for features, sites in (reference, result):
        if sites.ndim != 2 or sites.shape[1:] != rows.shape[1:] or len(sites) != len(features):
            raise SiteMismatch(
                f"{what}: expected one site (batch, z, y, x) per row, in {rows.shape[1:]} columns on both "
                f"sides, got features {list(features.shape)} and indices {list(sites.shape)}."
            )
    if np.array_equal(rows, others):
        return a, b
    first, second = (np.lexsort(sites.T[::-1]) for sites in (rows, others))
    if len(rows) != len(others) or not np.array_equal(rows[first], others[second]):
        left, right = ({tuple(site) for site in sites.tolist()} for sites in (rows, others))
        example = next(iter(sorted(left ^ right)), None)
        raise SiteMismatch(
            f"{what}: the reference has {len(rows)} sites, the result {len(others)}, and they differ "
            f"(first: {list(example) if example else 'a repeated site'}). Give both the same frame and grid."
        )
    return a[first], b[second]


def _numbers(array: npt.ArrayLike, what: str) -> npt.NDArray[Any]:
    known = isinstance(array, np.ndarray) or is_torch(array)
    values = as_numpy(array, what) if known else np.asarray(array, order="C")
    if values.dtype.kind not in "fiub":
        raise CompareError(f"{what}: expected numbers, got an array of {values.dtype}.")
    return values


def _same_bits(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> bool:
    if a.dtype != b.dtype:
        return False
    if a.dtype.itemsize > 8:  # the bytes of a longdouble include some that mean nothing
        return np.array_equal(a, b)
    bits = f"u{a.dtype.itemsize}"
    return np.array_equal(a.view(bits), b.view(bits))


def _identical(a: npt.NDArray[Any]) -> ArrayDifference:
    """Two equal arrays: only what `a` itself says is left to find."""
    nan = infinite = nonzero = 0
    power = 0.0
    for begin in range(0, a.size, _PIECE):
        x = a[begin : begin + _PIECE].astype(np.float64)
        if not np.isfinite(x).all():
            nan += int(np.isnan(x).sum())
            infinite += int(np.isinf(x).sum())
            x = np.where(np.isfinite(x), x, 0.0)
        nonzero += int(np.count_nonzero(x))
        power += float(x @ x)
    return ArrayDifference(
        count=a.size,
        equal=a.size - nan,
        nonzero=nonzero,
        equal_nonzero=nonzero,
        identical=True,
        max_abs=0.0,
        above=(0,) * len(BUCKETS),
        reference_nan=nan,
        result_nan=nan,
        reference_infinite=infinite,
        result_infinite=infinite,
        reference_nonzero=nonzero,
        result_nonzero=nonzero,
        sum_abs=0.0,
        sum_error=0.0,
        sum_product=power,
        sum_reference=power,
        sum_result=power,
    )


def _total(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> ArrayDifference:
    total: ArrayDifference | None = None
    for begin in range(0, max(a.size, 1), _PIECE):
        piece = _piece(a[begin : begin + _PIECE], b[begin : begin + _PIECE])
        total = piece if total is None else total + piece
    assert total is not None
    return total


def _piece(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> ArrayDifference:
    same = a == b
    x, y = _finite_pairs(a, b)
    error = x - y
    size = np.abs(error)
    nonzero = (a != 0) | (b != 0)
    return ArrayDifference(
        count=a.size,
        equal=int(np.count_nonzero(same)),
        nonzero=int(np.count_nonzero(nonzero)),
        equal_nonzero=int(np.count_nonzero(same & nonzero)),
        identical=False,
        max_abs=float(size.max(initial=0.0)),
        above=(0,) * len(BUCKETS),
        reference_nan=int(np.isnan(a).sum()),
        result_nan=int(np.isnan(b).sum()),
        reference_infinite=int(np.isinf(a).sum()),
        result_infinite=int(np.isinf(b).sum()),
        reference_nonzero=int(np.count_nonzero(a)),
        result_nonzero=int(np.count_nonzero(b)),
        sum_abs=float(size.sum()),
        sum_error=float(error @ error),
        sum_product=float(x @ y),
        sum_reference=float(x @ x),
        sum_result=float(y @ y),
    )


def _finite_pairs(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> tuple[Floats, Floats]:
    """Both in float64, without the places where either is NaN or infinite."""
    x, y = a.astype(np.float64), b.astype(np.float64)
    finite = np.isfinite(x) & np.isfinite(y)
    return (x, y) if finite.all() else (x[finite], y[finite])


def _plain(difference: ArrayDifference) -> dict[str, Any]:
    return {f.name: getattr(difference, f.name) for f in fields(difference)}
