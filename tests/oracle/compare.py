# SPDX-License-Identifier: Apache-2.0
"""Comparisons whose messages name the first value that differs."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["assert_same_bits", "assert_within", "cosine"]

Array = npt.NDArray[np.generic]


def _first(bad: npt.NDArray[np.bool_], got: Array, expected: Array, what: str) -> str:
    place = tuple(int(i) for i in np.argwhere(bad)[0])
    share = f"{np.count_nonzero(bad)} of {bad.size} values differ"
    return f"{what}: {share}; at {place}: {got[place]!r}, expected {expected[place]!r}"


def assert_same_bits(got: Array, expected: Array, what: str = "values") -> None:
    """Same dtype, shape and bit patterns."""
    assert got.dtype == expected.dtype, f"{what}: {got.dtype}, expected {expected.dtype}"
    assert got.shape == expected.shape, f"{what}: {got.shape}, expected {expected.shape}"
    word = np.dtype(f"u{got.dtype.itemsize}")
    bad = np.ascontiguousarray(got).view(word) != np.ascontiguousarray(expected).view(word)
    assert not bad.any(), _first(bad, got, expected, what)


def assert_within(got: Array, expected: Array, bound: npt.ArrayLike, what: str = "values") -> None:
    """`|got - expected| <= bound`, value by value; nothing is NaN."""
    assert got.shape == expected.shape, f"{what}: {got.shape}, expected {expected.shape}"
    error = np.abs(got.astype(np.float64) - expected.astype(np.float64))
    bad = ~(error <= np.broadcast_to(bound, error.shape))
    assert not bad.any(), _first(bad, got, expected, what)


def cosine(a: Array, b: Array) -> float:
    """Cosine of the angle between two arrays as vectors, in float64."""
    left, right = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    return float(left @ right / np.sqrt((left @ left) * (right @ right)))
