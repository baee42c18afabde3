# SPDX-License-Identifier: Apache-2.0
"""Which limits follow from the precisions of both sides, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest

from scn_fx.runtime import Limits, compare_arrays, default_limits
from scn_fx.runtime.limits import Arithmetic

FIRST = Arithmetic("fp16", "int8", 5)
WIDE = Arithmetic("fp16", "fp16", 16)
INT8 = Arithmetic("int8", "int8", 16)
ADD = Arithmetic("int8", "int8")
FLOAT = Arithmetic("fp32", "fp32", 16)


def limits(reference: list[Arithmetic], result: list[Arithmetic]) -> Limits:
    names = [f"layer{i}" for i in range(len(reference))]
    return default_limits(dict(zip(names, reference, strict=True)), dict(zip(names, result, strict=True)))


def test_the_default_precision_must_be_identical() -> None:
    assert limits([FIRST, INT8, ADD], [FIRST, INT8, ADD]).identical


@pytest.mark.parametrize(
    ("reference", "result"),
    [
        ([FIRST, WIDE], [FIRST, WIDE]),
        ([FLOAT, FLOAT], [FLOAT, FLOAT]),
        ([FLOAT, FLOAT], [FIRST, WIDE]),
        ([FIRST, INT8, WIDE], [FIRST, INT8, WIDE]),
        ([FIRST, INT8], [FLOAT, FLOAT]),
        ([FIRST, INT8], [Arithmetic("fp16", "fp16", 5), INT8]),
    ],
)
def test_other_pairs_are_judged_by_similarity(reference: list[Arithmetic], result: list[Arithmetic]) -> None:
    found = limits(reference, result)
    assert not found.identical
    assert found.cosine is not None and 0.85 < found.cosine < 1.0
    assert found.sqnr_db is not None and found.sqnr_db > 5.0


def test_limits_fall_from_float_to_mixed_to_quantised() -> None:
    floats = limits([FLOAT] * 20, [WIDE] * 20)
    mixed = limits([INT8] * 10 + [WIDE] * 10, [INT8] * 10 + [WIDE] * 10)
    quantised = limits([FLOAT] * 20, [INT8] * 20)
    values = [entry.sqnr_db for entry in (floats, mixed, quantised)]
    assert None not in values and values == sorted(values, reverse=True)  # type: ignore[type-var]
    assert limits([FLOAT], [WIDE]).sqnr_db > floats.sqnr_db  # type: ignore[operator]


def test_one_rounding_to_float16_stays_within_its_limit() -> None:
    """The power of one rounding that the limits build on is not exceeded by real roundings."""
    values = np.random.default_rng(0).standard_normal(100_000).astype(np.float32)
    found = compare_arrays(values, values.astype(np.float16))
    assert found.sqnr_db > 10 * np.log10(3 * 2.0**22)


def test_each_limit_refuses_and_says_why() -> None:
    values = np.float32([1.0, 2.0, -3.0])
    found = compare_arrays(values, values * np.float32(1.1))
    assert Limits().failures(found) == ()
    assert "expected the same bits" in Limits(identical=True).failures(found)[0]
    assert "cosine" in Limits(cosine=1.0).failures(compare_arrays(values, values[::-1]))[0]
    assert "SQNR 20.0 dB is below 30.0" in Limits(sqnr_db=30.0).failures(found)[0]
    assert "largest difference 0.3 is above 0.1" in Limits(max_abs=0.1).failures(found)[0]
    assert Limits(cosine=0.99, sqnr_db=19.0, max_abs=0.4).failures(found) == ()


def test_faults_fail_without_any_limit() -> None:
    values = np.float32([1.0, 2.0])
    assert Limits().failures(compare_arrays(values, np.float32([1.0, np.nan])))
    assert Limits().failures(compare_arrays(values, np.float32([1.0, np.inf])))
    zero = compare_arrays(values, values * 0)
    assert Limits().failures(zero) == ("the result is all zero",)
    assert Limits(allow_zero=True).failures(zero) == ()
    nan = compare_arrays(values, np.float32([np.nan, 0.0]))
    assert Limits(allow_zero=True).failures(nan), "NaN never passes"


def test_equal_values_with_other_bits_are_refused_where_bits_count() -> None:
    found = compare_arrays(np.float32([1.0]), np.float16([1.0]))
    assert "dtypes or signs of zero" in Limits(identical=True).failures(found)[0]
