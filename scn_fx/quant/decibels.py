# SPDX-License-Identifier: Apache-2.0
"""Signal to noise in decibels."""

from __future__ import annotations

import math

__all__ = ["decibels"]


def decibels(signal: float, noise: float) -> float:
    """``10 log10(signal / noise)`` of two sums of squares; infinite without noise, -inf without a signal."""
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal else -math.inf
