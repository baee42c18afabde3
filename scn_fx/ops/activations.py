# SPDX-License-Identifier: Apache-2.0
"""Activations: an operator for each entry of their table, and what fuses one asks of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from scn_fx.errors import ScnError, SiteError
from scn_fx.operators.activations import ACTIVATIONS, Activation, Before, real_activations
from scn_fx.operators.table import activation_operator
from scn_fx.ops.checks import FLOATS, FLOATS_TEXT, shape_text
from scn_fx.ops.dispatch import Operator, define, fake

__all__ = ["OPERATORS", "before_activation", "check_activation"]


def check_activation(name: str, activation: str, parameter: float) -> None:
    """`activation` must be one that the table has, with a finite number if it takes one."""
    if activation not in ACTIVATIONS:
        raise ScnError(
            f"Layer {name!r}: activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}."
        )
    number = ACTIVATIONS[activation].parameter
    if number is not None and not abs(parameter) < 2.0**128:
        raise ScnError(
            f"Layer {name!r}: {number.name} of {activation} must be a finite float32, got {parameter!r}."
        )


def before_activation(
    grad: torch.Tensor, output: torch.Tensor, before: Before, activation: str, parameter: float
) -> torch.Tensor:
    """The gradient before an activation, from `grad` behind it and its result; see `Activation.gradient`."""
    return ACTIVATIONS[activation].gradient(grad, output, before, parameter)


def _check(x: torch.Tensor, name: str) -> None:
    if x.dtype not in FLOATS:
        raise SiteError(
            f"Layer {name!r}: features must be {FLOATS_TEXT}, got {shape_text(x)}. Convert them first: "
            ".float()."
        )


def _defined(activation: Activation) -> Operator:
    spec = activation_operator(activation)
    default = 0.0 if activation.parameter is None else activation.parameter.default

    @define(spec.name, spec.schema)
    def operator(x: torch.Tensor, *, name: str, activation_parameter: float = default) -> torch.Tensor:
        """The activation of `x`, same shape and dtype; NaN stays NaN."""
        _check(x, name)
        check_activation(name, activation.name, activation_parameter)
        made = activation.compute(x, activation_parameter)
        return made.clone() if made is x else made

    @fake(operator)
    def _(x: torch.Tensor, *, name: str, activation_parameter: float = default) -> torch.Tensor:
        _check(x, name)
        return x.new_empty(x.shape)

    def save(
        ctx: Any, inputs: tuple[Any, ...], keyword_only_inputs: dict[str, Any], output: torch.Tensor
    ) -> None:
        ctx.save_for_backward(inputs[0], output)
        ctx.parameter = keyword_only_inputs.get("activation_parameter", default)

    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        x, output = ctx.saved_tensors
        return activation.gradient(grad, output, lambda: x, ctx.parameter)

    operator.register_autograd(backward, setup_context=save)
    return operator


OPERATORS: Mapping[str, Operator] = {each.operator: _defined(each) for each in real_activations()}
"""The operators, by name."""
