# SPDX-License-Identifier: Apache-2.0
"""Exactly rounded float32 and float16 arithmetic on numpy arrays, independent of the machine's FMA units."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["Rounded", "fma32", "round_to_float16"]

Float32 = npt.NDArray[np.float32]


def _two_sum(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> tuple[np.ndarray, np.ndarray]:
    """Knuth's error-free addition: `s + e == a + b` exactly, s the rounded sum."""
    s = a + b
    b_part = s - a
    return s, (a - (s - b_part)) + (b - b_part)


def fma32(a: npt.ArrayLike, b: npt.ArrayLike, c: npt.ArrayLike) -> Float32:
    """`a * b + c` of finite float32 operands (broadcast), rounded once, half to even.

    The product of two 24-bit significands is exact in float64. The sum may be inexact there, and rounding it
    twice (to 53, then to 24 bits) could err, so the float64 sum is rounded *to odd*: an inexact sum takes the
    neighbour whose last bit is 1. With 53 >= 2 * 24 + 2 bits the second rounding is then the correct one
    (Boldo and Melquiond, "Emulation of FMA and correctly rounded sums", IEEE Trans. Computers 2008).
    """
    product = np.asarray(a, np.float32).astype(np.float64) * np.asarray(b, np.float32).astype(np.float64)
    total, error = _two_sum(product, np.asarray(c, np.float32).astype(np.float64))
    is_even = (total.view(np.int64) & 1) == 0 if total.ndim else (np.int64(total.view(np.int64)) & 1) == 0
    towards = np.where(error > 0, np.inf, -np.inf)
    odd = np.where((error != 0) & is_even, np.nextafter(total, towards), total)
    with np.errstate(over="ignore"):
        return odd.astype(np.float32)


class Rounded(NamedTuple):
    """Float16 values and how many finite inputs became infinite."""

    values: npt.NDArray[np.float16]
    overflowed: int


def round_to_float16(x: npt.ArrayLike) -> Rounded:
    """Round to float16, half to even, subnormals kept; counts finite values that do not fit (>= 65520)."""
    x = np.asarray(x)
    with np.errstate(over="ignore"):
        values = x.astype(np.float16)
    return Rounded(values, int(np.count_nonzero(np.isinf(values) & np.isfinite(x))))
