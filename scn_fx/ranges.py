# SPDX-License-Identifier: Apache-2.0
"""Which dynamic ranges int8 can be computed with: one rule for graphs, calibration and engine.

A range (amax) is the magnitude that becomes 127. The compiled side has the same rule in
``csrc/core/numerics.h``; a test compares the two at their edges.
"""

from __future__ import annotations

import math
import struct

__all__ = [
    "LARGEST_RANGE",
    "LARGEST_SCALE",
    "SMALLEST_RANGE",
    "SMALLEST_SCALE",
    "USABLE_RANGE",
    "sum_scale",
    "to_float32",
    "usable_range",
    "usable_scale",
]

# Between them 127 / amax and amax / 127 are normal float32 numbers, and two values of such ranges have a
# finite sum.
SMALLEST_RANGE = 2.0**-100
LARGEST_RANGE = 2.0**100

# Scales of 32-bit sums: normal numbers that turn no sum into infinity.
SMALLEST_SCALE = 2.0**-126
LARGEST_SCALE = 2.0**96

# What a range must be, for messages.
USABLE_RANGE = "a number from 7.9e-31 to 1.27e+30 (2^-100 to 2^100)"


def to_float32(value: float) -> float:
    """The float32 number nearest to `value`, in which engines keep it; infinite where float32 ends."""
    try:
        return float(struct.unpack("<f", struct.pack("<f", value))[0])
    except OverflowError:
        return math.copysign(math.inf, value)


def usable_range(amax: float) -> bool:
    """Whether `amax`, as float32, lies from SMALLEST_RANGE to LARGEST_RANGE (NaN does not)."""
    return SMALLEST_RANGE <= to_float32(amax) <= LARGEST_RANGE


def sum_scale(input_amax: float, weight_amax: float) -> float:
    """The float32 number that a convolution's integer sums are multiplied with, from two usable ranges."""
    return to_float32(to_float32(to_float32(input_amax) / 127) * to_float32(to_float32(weight_amax) / 127))


def usable_scale(scale: float) -> bool:
    """Whether 32-bit sums can be multiplied with `scale`: from SMALLEST_SCALE to LARGEST_SCALE."""
    return SMALLEST_SCALE <= scale <= LARGEST_SCALE
