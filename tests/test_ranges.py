# SPDX-License-Identifier: Apache-2.0
"""Python and the engine agree on which dynamic ranges are usable, at the edges too."""

from __future__ import annotations

import math
import struct

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from scn_fx import _core
from scn_fx.errors import ArgumentError, CalibrationError
from scn_fx.quant.ranges import checked_range
from scn_fx.ranges import (
    LARGEST_RANGE,
    LARGEST_SCALE,
    SMALLEST_RANGE,
    SMALLEST_SCALE,
    USABLE_RANGE,
    sum_scale,
    to_float32,
    usable_range,
    usable_scale,
)
from tests.core.activations import NONE

ONE = np.ones((1, 1), np.float32)
NO_RANGES = [
    0.0, -0.0, -1.0, -SMALLEST_RANGE, math.nan, math.inf, -math.inf, 5e-324, 1.4e-45, 1.2e-38, 1e300, 3.4e38,
    float(np.nextafter(np.float32(SMALLEST_RANGE), np.float32(0))),
    float(np.nextafter(np.float32(LARGEST_RANGE), np.float32(np.inf))),
]  # fmt: skip
RANGES = [
    SMALLEST_RANGE, LARGEST_RANGE, 1.0, 65504.0,
    math.nextafter(SMALLEST_RANGE, 0),  # as float32 it is the smallest one
    math.nextafter(LARGEST_RANGE, math.inf),
    float(np.nextafter(np.float32(SMALLEST_RANGE), np.float32(1))),
    float(np.nextafter(np.float32(LARGEST_RANGE), np.float32(1))),
]  # fmt: skip


def _engine_takes(amax: float) -> bool:
    """Whether the compiled Add takes `amax` for either input."""
    taken = []
    for ranges in ((amax, 1.0), (1.0, amax)):
        try:
            _core.add(ONE, ONE, "int8", "int8", NONE, *ranges)
            taken.append(True)
        except ArgumentError as error:
            assert USABLE_RANGE in str(error)
            taken.append(False)
    assert taken[0] == taken[1]
    return taken[0]


def _engine_multiplies(input_amax: float, weight_amax: float) -> bool:
    weight, rows = np.ones((1, 1, 1, 1, 1), np.float32), np.zeros((1, 1), np.int32)
    try:
        _core.convolution(
            ONE, weight, None, rows, "int8", "int8", NONE, input_amax, np.float32([weight_amax])
        )
    except ArgumentError as error:
        assert "product" in str(error)
        return False
    return True


@pytest.mark.parametrize("amax", NO_RANGES)
def test_what_is_no_range(amax: float) -> None:
    assert not usable_range(amax) and not _engine_takes(amax)
    with pytest.raises(CalibrationError, match="the range must be"):
        checked_range(amax, "layer")


@pytest.mark.parametrize("amax", RANGES)
def test_what_is_a_range(amax: float) -> None:
    assert usable_range(amax) and _engine_takes(amax)
    assert checked_range(amax, "layer") == to_float32(amax)


@given(st.floats(width=64))
def test_both_sides_agree_on_ranges(amax: float) -> None:
    assert usable_range(amax) == _engine_takes(amax)


EXPONENTS = st.floats(-100, 100)


@given(EXPONENTS, EXPONENTS)
@example(-58.5, -58.5)
@example(55.0, 54.97)
def test_both_sides_agree_on_products(a: float, b: float) -> None:
    one, other = to_float32(2.0**a), to_float32(2.0**b)
    assert usable_scale(sum_scale(one, other)) == _engine_multiplies(one, other)


def test_the_edges_of_products() -> None:
    """Walks over the weight ranges around each edge, one float32 number at a time."""
    for edge, start in ((SMALLEST_SCALE, np.float32(2.0**-56)), (LARGEST_SCALE, np.float32(2.0**55))):
        other = np.float32(edge * 127 * 127 / float(start))
        seen = set()
        for steps in range(-6, 7):
            bits = np.array(other).view(np.int32) + np.int32(steps)
            near = float(np.array(bits).view(np.float32))
            usable = usable_scale(sum_scale(float(start), near))
            assert usable == _engine_multiplies(float(start), near)
            seen.add(usable)
        assert seen == {False, True}


@given(st.floats(width=64))
def test_rounding_is_that_of_float32(value: float) -> None:
    with np.errstate(over="ignore"):
        expected = np.float32(value)
    assert struct.pack("<d", to_float32(value))[-2:] == struct.pack("<d", float(expected))[-2:]
    assert to_float32(value) == float(expected) or math.isnan(value)
