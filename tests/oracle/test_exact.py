# SPDX-License-Identifier: Apache-2.0
"""The oracle's rounding against the C library and against hand-picked ties."""

from __future__ import annotations

import ctypes
import ctypes.util
import sys
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.oracle.exact import fma32, round_to_float16

LIBM = ctypes.CDLL(ctypes.util.find_library("m") or "libm.so.6")
LIBM.fmaf.argtypes = [ctypes.c_float] * 3
LIBM.fmaf.restype = ctypes.c_float
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


def _nearest(value: Fraction) -> float:
    """Correct rounding of a rational to float32, from its two neighbours; ties to the even significand."""
    guess = np.float32(float(value))
    sides = [guess, np.nextafter(guess, np.float32(np.inf)), np.nextafter(guess, np.float32(-np.inf))]
    best = min(abs(Fraction(float(s)) - value) for s in sides)
    near = [s for s in sides if abs(Fraction(float(s)) - value) == best]
    return float(min(near, key=lambda s: int(s.view(np.int32)) & 1))


@given(FLOATS, FLOATS, FLOATS)
@example(1 + 2.0**-12, 1 + 2.0**-12, 2.0**-48)  # beside a tie: two roundings would go to even
@example(1 + 2.0**-12, 1 + 2.0**-12, -(2.0**-48))
@example(2.0**-75, 2.0**-75, 2.0**-149)  # half of the smallest subnormal
@example(-1.0, 0.0, 0.0)
def test_fma_equals_the_c_library(a: float, b: float, c: float) -> None:
    expected = np.float32(LIBM.fmaf(a, b, c))
    assert fma32(a, b, c).tobytes() == expected.tobytes()


def test_fma_equals_the_c_library_on_typical_requantisations() -> None:
    rng = np.random.default_rng(0)
    a = rng.integers(-(2**28), 2**28, 20_000).astype(np.float32)
    b = (rng.random(20_000) * 1e-4).astype(np.float32)
    c = rng.normal(size=20_000).astype(np.float16).astype(np.float32)
    expected = np.array([LIBM.fmaf(*t) for t in zip(a, b, c, strict=True)], np.float32)
    assert fma32(a, b, c).tobytes() == expected.tobytes()
    assert (a * b + c != expected).any(), "the inputs never tell a fused from an unfused operation"


def test_fma_differs_from_rounding_twice() -> None:
    a, c = np.float32(1 + 2.0**-12), np.float32(2.0**-70)
    twice = np.float32(float(a) * float(a) + float(c))  # float64 loses c, then the tie goes to even
    fused = fma32(a, a, c)
    assert float(fused) == _nearest(Fraction(float(a)) ** 2 + Fraction(float(c))) != float(twice)


if sys.version_info >= (3, 13):
    import math

    @given(FLOATS, FLOATS, FLOATS)
    def test_float64_fma_then_rounding_brackets_ours(a: float, b: float, c: float) -> None:
        ours, double = float(fma32(a, b, c)), math.fma(a, b, c)
        assert abs(ours - float(np.float32(double))) <= float(np.spacing(np.float32(abs(ours))))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (2049.0, 2048.0),
        (2051.0, 2052.0),
        (65519.99, 65504.0),
        (2.0**-25, 0.0),
        (1.5 * 2.0**-24, 2.0**-23),
        (np.nextafter(np.float32(2.0**-25), np.float32(1)), 2.0**-24),
    ],
)
def test_float16_rounds_half_to_even(value: float, expected: float) -> None:
    values, overflowed = round_to_float16(np.float32([value, -value]))
    assert values.tolist() == [expected, -expected]
    assert overflowed == 0


def test_float16_overflow_is_counted() -> None:
    values, overflowed = round_to_float16(np.float32([65520, -1e9, np.inf, 1, 65519]))
    assert np.isinf(values).tolist() == [True, True, True, False, False]
    assert overflowed == 2, "an infinite input is not an overflow"
