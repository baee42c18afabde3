# SPDX-License-Identifier: Apache-2.0
"""Residual addition of two feature tensors on the same sites, with an optional activation."""

from __future__ import annotations

from typing import Any

import torch

from scn_fx.errors import SiteError
from scn_fx.operators.activations import ACTIVATIONS, NO_ACTIVATION
from scn_fx.operators.add import ADD
from scn_fx.ops.activations import before_activation, check_activation
from scn_fx.ops.checks import (
    check_features,
    check_precisions,
    check_range,
    result_dtype,
    shape_text,
)
from scn_fx.ops.devices import kernels_for
from scn_fx.ops.dispatch import define, fake, only_shapes_matter
from scn_fx.ops.straight_through import as_used

__all__ = ["add", "check_pair", "check_same_sites"]


def check_pair(a: torch.Tensor, b: torch.Tensor, name: str) -> None:
    """Two feature tensors of one width."""
    check_features(name, a, "the first operand")
    check_features(name, b, "the second operand")
    if a.shape[1] != b.shape[1]:
        raise SiteError(
            f"Layer {name!r}: both operands must have the same channels, got {shape_text(a)} and "
            f"{shape_text(b)}."
        )


def check_same_sites(a: torch.Tensor, b: torch.Tensor, name: str) -> None:
    """Two feature tensors with as many rows."""
    if a.shape[0] != b.shape[0]:
        raise SiteError(
            f"Layer {name!r}: both operands must lie on the same sites, got {shape_text(a)} and "
            f"{shape_text(b)}."
        )


def _check(
    a: torch.Tensor,
    b: torch.Tensor,
    name: str,
    activation: tuple[str, float],
    precision: str,
    output_precision: str,
    input0_dynamic_range: float | None,
    input1_dynamic_range: float | None,
) -> None:
    check_pair(a, b, name)
    check_activation(name, *activation)
    check_precisions(name, precision, output_precision)
    if precision == "int8":
        check_range(name, "input0_dynamic_range", input0_dynamic_range)
        check_range(name, "input1_dynamic_range", input1_dynamic_range)


@define(ADD.name, ADD.schema)
def add(
    a: torch.Tensor,
    b: torch.Tensor,
    *,
    name: str,
    activation: str = "None",
    activation_parameter: float = 0.0,
    activation_name: str = "",
    precision: str = "fp32",
    output_precision: str = "fp32",
    input0_dynamic_range: float | None = None,
    input1_dynamic_range: float | None = None,
) -> torch.Tensor:
    """``act(a + b)`` of two float tensors [N, C] on the same sites in the same order.

    With precision "int8" each operand is quantised with its own range first. The result is float16 for
    output_precision "fp16", else float32. `activation_name` is the module path of the activation, for export.
    Gradients go straight through the rounding of float16 and int8 (see `straight_through`).
    """
    _check(
        a, b, name, (activation, activation_parameter), precision, output_precision, input0_dynamic_range,
        input1_dynamic_range,
    )  # fmt: skip
    if only_shapes_matter():
        return torch.zeros_like(a, dtype=result_dtype(output_precision))
    check_same_sites(a, b, name)
    return kernels_for(a).add(
        a, b, name, (activation, activation_parameter), precision, output_precision,
        float(input0_dynamic_range or 0.0), float(input1_dynamic_range or 0.0),
    )  # fmt: skip


@fake(add)
def _(
    a: torch.Tensor,
    b: torch.Tensor,
    *,
    name: str,
    activation: str = "None",
    activation_parameter: float = 0.0,
    activation_name: str = "",
    precision: str = "fp32",
    output_precision: str = "fp32",
    input0_dynamic_range: float | None = None,
    input1_dynamic_range: float | None = None,
) -> torch.Tensor:
    _check(
        a, b, name, (activation, activation_parameter), precision, output_precision, input0_dynamic_range,
        input1_dynamic_range,
    )  # fmt: skip
    return a.new_empty(a.shape, dtype=result_dtype(output_precision))


def _save(
    ctx: Any, inputs: tuple[Any, ...], keyword_only_inputs: dict[str, Any], output: torch.Tensor
) -> None:
    ctx.dtypes = (inputs[0].dtype, inputs[1].dtype)
    ctx.keywords = keyword_only_inputs
    fuses = bool(ACTIVATIONS[keyword_only_inputs["activation"]].operator)
    int8 = keyword_only_inputs["precision"] == "int8"
    ctx.save_for_backward(output if fuses else None, *(inputs if int8 or fuses else ()))


def _backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The gradient of both operands; straight through what float16 and int8 round."""
    output, *operands = ctx.saved_tensors
    given = ctx.keywords

    def before() -> torch.Tensor:
        """The sum, unrounded."""
        with torch.no_grad():
            return add(*operands, **{**given, "activation": NO_ACTIVATION, "output_precision": "int8"})

    if output is not None:
        grad = before_activation(grad, output, before, given["activation"], given["activation_parameter"])
    both = [grad, grad]
    if given["precision"] == "int8":
        ranges = (given["input0_dynamic_range"], given["input1_dynamic_range"])
        used = (as_used(x, "int8", amax) for x, amax in zip(operands, ranges, strict=True))
        both = [operand.masked(grad) for operand in used]
    return both[0].to(ctx.dtypes[0]), both[1].to(ctx.dtypes[1])


add.register_autograd(_backward, setup_context=_save)
