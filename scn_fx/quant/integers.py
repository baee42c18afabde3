# SPDX-License-Identifier: Apache-2.0
"""The integers that every engine makes of values and of float16 weights, and float16 weights for integers."""

from __future__ import annotations

import torch

from scn_fx.graph import Layer

__all__ = ["LEVELS", "float_levels", "holds_every_integer", "quantise", "scale_of", "weights_of"]

LEVELS = 127
"""The integer that the range itself becomes."""


def _per_channel(ranges: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """`ranges` [out] in the shape that multiplies `values` [out, ...]."""
    return ranges.reshape(-1, *[1] * (values.dim() - 1))


def scale_of(amax: torch.Tensor) -> torch.Tensor:
    """amax / 127 in float32."""
    wide = amax.float()
    return wide / torch.full_like(wide, LEVELS)


def quantise(values: torch.Tensor, amax: torch.Tensor) -> torch.Tensor:
    """``clamp(round_half_even(v * (127 / amax)), -128, 127)`` in float32, as whole numbers in float32.

    `amax` has no axes (one range), or is [out] for the first axis of `values`.
    """
    wide = amax.float()
    # Tensor by tensor: with a plain number on either side torch may multiply by a rounded reciprocal.
    factor = torch.full_like(wide, LEVELS) / wide
    if amax.dim():
        factor = _per_channel(factor, values)
    return (values.float() * factor).round_().clamp_(-LEVELS - 1, LEVELS)


def weights_of(integers: torch.Tensor, ranges: torch.Tensor) -> torch.Tensor:
    """The float16 weights nearest to ``integers * range / 127``, both [out, ...]."""
    exact = integers.double() * _per_channel(ranges.double() / LEVELS, integers)
    return exact.to(torch.float16)


def holds_every_integer(ranges: torch.Tensor) -> torch.Tensor:
    """For which ranges [out] float16 can keep every integer from -127 to 127: bool [out].

    The nearest float16 number is off by at most 2^-11 of the value, 0.06 integers at 127, so every engine
    finds the same integer again; unless float16 ends (ranges above 65504) or its subnormal numbers, 2^-24
    apart, are more than an integer apart (ranges below 127 * 2^-24 = 7.6e-6). Tried out, not derived.
    """
    every = torch.arange(-LEVELS, LEVELS + 1, device=ranges.device).expand(len(ranges), -1)
    stored = weights_of(every, ranges)
    return (quantise(stored, ranges) == every).all(dim=1) & stored.isfinite().all(dim=1)


def float_levels(layer: Layer, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """`weight` [out, ...] in units of its integers, float64 [K * in, out], and its ranges, float32 [out]."""
    ranges = torch.tensor(layer.weight_dynamic_ranges, dtype=torch.float32, device=weight.device)
    flat = weight.double().reshape(len(ranges), -1)
    return (flat / (ranges.double() / LEVELS)[:, None]).t().contiguous(), ranges
