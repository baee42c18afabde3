# SPDX-License-Identifier: Apache-2.0
"""What activations compute, and their gradients, on torch tensors.

The float32 operations are those of csrc/core/activations-inl.h, one by one and in their order: as none of
them is fused with another, the bits are the same. Values of other types are computed in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

__all__ = ["Before", "Compute", "Gradient", "formulas", "gradients"]

Compute = Callable[["torch.Tensor", float], "torch.Tensor"]
Before = Callable[[], "torch.Tensor"]
"""Gives the argument of an activation whose result is known."""
Gradient = Callable[["torch.Tensor", "torch.Tensor", Before, float], "torch.Tensor"]


def _aten() -> Any:
    import torch

    return torch.ops.aten


def exponential(z: torch.Tensor) -> torch.Tensor:
    """e^z of float32."""
    import torch

    rounder = 12582912.0  # 1.5 · 2^23: leaves no bits for a fraction
    z = z.clamp(-86.0, 89.0)
    shifted = z * 1.4426950216293335 + rounder
    n = shifted - rounder
    r = z - n * 0.693359375
    r = r + n * 0.00021219444170128554
    power = torch.full_like(r, 1 / 5040)
    for factorial in (720, 120, 24, 6, 2, 1, 1):
        power = power * r + 1 / factorial
    half = ((shifted.view(torch.int32) + 126) << 23).view(torch.float32)
    return power * half * 2.0


def _relu(x: torch.Tensor) -> torch.Tensor:
    """NaN stays NaN, and -0 becomes +0 (which torch.relu leaves)."""
    return x.masked_fill(x <= 0, 0.0)


def _one_and_exponential(z: torch.Tensor) -> torch.Tensor:
    return exponential(z) + 1.0


def _gelu(x: torch.Tensor) -> torch.Tensor:
    size = x.where(x > 0, -x)
    t = 1.0 / (size * 0.23164188861846924 + 1.0)
    tail = x.new_full(x.shape, 0.5307027)
    for coefficient in (-0.72657603, 0.7107069, -0.14224836, 0.1274148):
        tail = tail * t + coefficient
    tail = tail * t * exponential(x * x * -0.5)
    return x * (1.0 - tail).where(x > 0, tail)


def _gelu_tanh(x: torch.Tensor) -> torch.Tensor:
    u = x + x * x * x * 0.044715
    return x / _one_and_exponential(u * -1.5957692)


def _relu6(x: torch.Tensor) -> torch.Tensor:
    return _relu(x).clamp(max=6.0)


def _hardsigmoid(x: torch.Tensor) -> torch.Tensor:
    return _relu6(x + 3.0) / 6.0


def _wide(formula: Callable[[torch.Tensor], torch.Tensor]) -> Compute:
    """A formula of float32, for all types."""
    return lambda x, parameter: formula(x.float()).to(x.dtype)


def _leaky_relu(x: torch.Tensor, slope: float) -> torch.Tensor:
    wide = x.float()
    return wide.where(wide > 0, wide * slope).to(x.dtype)


formulas: dict[str, Compute] = {
    "None": lambda x, parameter: x,
    "ReLU": lambda x, parameter: _relu(x),
    "LeakyReLU": _leaky_relu,
    "SiLU": _wide(lambda x: x / _one_and_exponential(-x)),
    "Sigmoid": _wide(lambda x: 1.0 / _one_and_exponential(-x)),
    "Tanh": _wide(lambda x: -2.0 / _one_and_exponential(x + x) + 1.0),
    "GELU": _wide(_gelu),
    "GELUTanh": _wide(_gelu_tanh),
    "ReLU6": _wide(_relu6),
    "Hardswish": _wide(lambda x: x * _hardsigmoid(x)),
    "Hardsigmoid": _wide(_hardsigmoid),
}


def _of_result(call: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Gradient:
    """A gradient that needs the result, in float32: of float16, torch's CUDA kernels round each step."""
    return lambda grad, output, before, parameter: call(grad.float(), output.float()).to(grad.dtype)


def _of_argument(call: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Gradient:
    """One that needs the argument: two of them may have one result. In float32 as well."""
    return lambda grad, output, before, parameter: call(grad.float(), before().float()).to(grad.dtype)


def _leaky_gradient(grad: torch.Tensor, output: torch.Tensor, before: Before, slope: float) -> torch.Tensor:
    """The result has the sign of its argument unless the slope is negative."""
    at = output if slope > 0 else before()
    return _aten().leaky_relu_backward(grad.float(), at.float(), slope, False).to(grad.dtype)


gradients: dict[str, Gradient] = {
    "None": lambda grad, output, before, parameter: grad,
    # Zero where the result is, as torch has it; NaN passes.
    "ReLU": lambda grad, output, before, parameter: _aten().threshold_backward(
        grad, output.to(grad.dtype), 0
    ),
    "LeakyReLU": _leaky_gradient,
    "SiLU": _of_argument(lambda grad, x: _aten().silu_backward(grad, x)),
    "Sigmoid": _of_result(lambda grad, output: _aten().sigmoid_backward(grad, output)),
    "Tanh": _of_result(lambda grad, output: _aten().tanh_backward(grad, output)),
    "GELU": _of_argument(lambda grad, x: _aten().gelu_backward(grad, x)),
    "GELUTanh": _of_argument(lambda grad, x: _aten().gelu_backward(grad, x, approximate="tanh")),
    "ReLU6": lambda grad, output, before, parameter: _aten().hardtanh_backward(
        grad, output.to(grad.dtype), 0.0, 6.0
    ),
    "Hardswish": _of_argument(lambda grad, x: _aten().hardswish_backward(grad, x)),
    "Hardsigmoid": _of_argument(lambda grad, x: _aten().hardsigmoid_backward(grad, x)),
}
