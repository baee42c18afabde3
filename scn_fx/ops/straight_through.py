# SPDX-License-Identifier: Apache-2.0
"""Straight-through gradients: rounding has derivative 1 within a range, 0 beyond it.

A forward in float16 or int8 computes exactly what an engine computes. Its gradient is that of the float32
network whose operands have the values that the forward used:

- int8: s · q(x) with s = amax / 127 and q(x) = clamp(round(x · (127 / amax)), -128, 127) takes the place of x
  in the products; its derivative is 1 where round(x · (127 / amax)) is within [-128, 127], else 0. Weights
  likewise, rounded to float16 first, with the range of their output channel.
- float16: the operands rounded to float16 take their place, with derivative 1.

Rounding the result to float16 has derivative 1 as well; ranges are constants (Bengio et al., "Estimating or
Propagating Gradients Through Stochastic Neurons", 2013; Jacob et al., "Quantization and Training of Neural
Networks", 2018).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

__all__ = ["Operand", "as_used", "on_device", "weight_as_used"]


class Operand(NamedTuple):
    """What stands for an operand in a gradient."""

    values: torch.Tensor
    """float32, as the forward used them."""
    inside: torch.Tensor | None
    """Where they are within their range; None: everywhere."""

    def masked(self, grad: torch.Tensor) -> torch.Tensor:
        """The gradient by the operand itself, from `grad` by its values as used."""
        return grad if self.inside is None else torch.where(self.inside, grad, grad.new_zeros(()))


def as_used(x: torch.Tensor, precision: str, amax: float | torch.Tensor | None) -> Operand:
    """`x` as arithmetic of `precision` uses it; `amax`: its range, for "int8"."""
    if precision == "fp32":
        return Operand(x.float(), None)
    if precision == "fp16":
        return Operand(x.half().float(), None)
    # in float32, as the forward has it
    if isinstance(amax, torch.Tensor):
        # Tensor by tensor: torch turns a division of or by a number into a product with its reciprocal, which
        # can be one unit off.
        top = torch.full_like(amax, 127.0)
        factor: float | torch.Tensor = top / amax
        scale: float | torch.Tensor = amax / top
    else:  # numbers need no copy to the device, for which the host would wait
        limit, most = np.float32(amax), np.float32(127.0)
        factor, scale = float(most / limit), float(limit / most)
    steps = (x.float() * factor).round()
    return Operand(steps.clamp(-128, 127) * scale, (steps >= -128) & (steps <= 127))


def on_device(numbers: Sequence[float], device: torch.device) -> torch.Tensor:
    """float32 numbers on a device, without a wait: a copy this small is taken at once."""
    return torch.tensor(list(numbers), dtype=torch.float32).to(device, non_blocking=True)


def weight_as_used(weight: torch.Tensor, precision: str, ranges: Sequence[float] | None) -> Operand:
    """The same of a weight [out, K, in], with a range per output channel."""
    if precision != "int8" or ranges is None:
        return as_used(weight, precision, None)
    return as_used(weight.half(), precision, on_device(ranges, weight.device).reshape(-1, 1, 1))
