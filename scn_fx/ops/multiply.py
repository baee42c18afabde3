# SPDX-License-Identifier: Apache-2.0
"""Product of two feature tensors on the same sites."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from scn_fx.errors import CalibrationError
from scn_fx.operators.multiply import MULTIPLY
from scn_fx.ops.add import check_pair, check_same_sites
from scn_fx.ops.checks import check_precisions, check_range, result_dtype, to_half
from scn_fx.ops.dispatch import define, fake, only_shapes_matter
from scn_fx.ops.straight_through import as_used
from scn_fx.ranges import usable_scale

__all__ = ["multiply"]


def product_scale(amax0: float, amax1: float) -> float:
    """amax0 / 127 times amax1 / 127, in float32: what the product of two quantised values counts."""
    most = np.float32(127.0)
    return float(np.float32(amax0) / most * (np.float32(amax1) / most))


def _check(
    a: torch.Tensor,
    b: torch.Tensor,
    name: str,
    precision: str,
    output_precision: str,
    input0_dynamic_range: float | None,
    input1_dynamic_range: float | None,
) -> None:
    check_pair(a, b, name)
    check_precisions(name, precision, output_precision)
    if precision != "int8":
        return
    first = check_range(name, "input0_dynamic_range", input0_dynamic_range)
    second = check_range(name, "input1_dynamic_range", input1_dynamic_range)
    if not usable_scale(product_scale(first, second)):
        raise CalibrationError(
            f"Layer {name!r}: input0_dynamic_range {first} and input1_dynamic_range {second} make a product "
            "of two int8 steps that float32 cannot compute with. Give this layer fp16 precision."
        )


@define(MULTIPLY.name, MULTIPLY.schema)
def multiply(
    a: torch.Tensor,
    b: torch.Tensor,
    *,
    name: str,
    precision: str = "fp32",
    output_precision: str = "fp32",
    input0_dynamic_range: float | None = None,
    input1_dynamic_range: float | None = None,
) -> torch.Tensor:
    """``a * b`` of two float tensors [N, C] on the same sites in the same order.

    With precision "int8" each operand is quantised with its own range first, and the result is ``(q_a * q_b)
    * s`` with the product s of both steps. float16 for output_precision "fp16", else float32. Gradients go
    straight through the rounding of float16 and int8 (see `straight_through`).
    """
    _check(a, b, name, precision, output_precision, input0_dynamic_range, input1_dynamic_range)
    dtype = result_dtype(output_precision)
    if only_shapes_matter():
        return torch.zeros_like(a, dtype=dtype)
    check_same_sites(a, b, name)
    if precision == "int8":
        assert input0_dynamic_range is not None and input1_dynamic_range is not None
        steps = _steps(a, input0_dynamic_range) * _steps(b, input1_dynamic_range)
        made = steps * product_scale(input0_dynamic_range, input1_dynamic_range)
    elif precision == "fp16":
        made = to_half(name, "features", a).float() * to_half(name, "features", b).float()
    else:
        made = a.float() * b.float()
    return to_half(name, "the result", made) if dtype is torch.float16 else made


def _steps(x: torch.Tensor, amax: float) -> torch.Tensor:
    """`x` quantised with its range, as float32 numbers from -128 to 127."""
    factor = float(np.float32(127.0) / np.float32(amax))
    # integers have no negative zero, whose products would have another sign
    return (x.float() * factor).round().clamp(-128, 127) + 0.0


@fake(multiply)
def _(
    a: torch.Tensor,
    b: torch.Tensor,
    *,
    name: str,
    precision: str = "fp32",
    output_precision: str = "fp32",
    input0_dynamic_range: float | None = None,
    input1_dynamic_range: float | None = None,
) -> torch.Tensor:
    _check(a, b, name, precision, output_precision, input0_dynamic_range, input1_dynamic_range)
    return a.new_empty(a.shape, dtype=result_dtype(output_precision))


def _save(
    ctx: Any, inputs: tuple[Any, ...], keyword_only_inputs: dict[str, Any], output: torch.Tensor
) -> None:
    ctx.keywords = keyword_only_inputs
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Each operand's gradient is the other one's values, as the forward used them."""
    a, b = ctx.saved_tensors
    given = ctx.keywords
    first, second = (
        as_used(x, given["precision"], given[f"input{i}_dynamic_range"]) for i, x in enumerate((a, b))
    )
    grad = grad.float()
    return first.masked(grad * second.values).to(a.dtype), second.masked(grad * first.values).to(b.dtype)


multiply.register_autograd(_backward, setup_context=_save)
