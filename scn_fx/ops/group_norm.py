# SPDX-License-Identifier: Apache-2.0
"""Normalisation of each row over groups of its channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from scn_fx.errors import ArgumentError
from scn_fx.operators.group_norm import GROUP_NORM
from scn_fx.ops.affine import check_numbers
from scn_fx.ops.checks import check_features
from scn_fx.ops.dispatch import define, fake

__all__ = ["group_norm"]


def _check(
    x: torch.Tensor, name: str, groups: int, epsilon: float, numbers: dict[str, Sequence[float]]
) -> None:
    check_features(name, x)
    check_numbers(name, x.shape[1], numbers)
    if groups < 1 or x.shape[1] % groups:
        raise ArgumentError(
            f"Layer {name!r}: groups must divide the {x.shape[1]} channels of its features, got {groups}."
        )
    if not 0.0 <= epsilon < 2.0**128:
        raise ArgumentError(f"Layer {name!r}: epsilon must be a finite number >= 0, got {epsilon!r}.")


@define(GROUP_NORM.name, GROUP_NORM.schema)
def group_norm(
    x: torch.Tensor, *, name: str, groups: int, epsilon: float, scale: Sequence[float], shift: Sequence[float]
) -> torch.Tensor:
    """``(x - mean) / sqrt(variance + epsilon) * scale + shift`` of a float tensor [N, C]; its dtype.

    Mean and variance are those of each row over C / groups neighbouring channels. All of it is float64, one
    operation after the other and sums in the order of channels, rounded once to float32: the same bits on
    every device.
    """
    _check(x, name, groups, epsilon, {"scale": scale, "shift": shift})
    values = x.double().unflatten(1, (groups, -1))
    count = values.shape[2]
    centred = values - (_sum(values) / count).unsqueeze(2)
    deviation = (_sum(centred * centred) / count + _float32(epsilon)).sqrt()
    factors, shifts = (
        torch.tensor(list(each), dtype=torch.float32).double().to(x.device).reshape(groups, count)
        for each in (scale, shift)
    )
    made = centred / deviation.unsqueeze(2) * factors + shifts
    return made.flatten(1).float().to(x.dtype)


def _sum(values: torch.Tensor) -> torch.Tensor:
    """The sum over the last axis, one after the other."""
    total = torch.zeros_like(values[..., 0])
    for each in values.unbind(2):
        total = total + each
    return total


def _float32(value: float) -> float:
    return float(torch.tensor(value, dtype=torch.float32))


@fake(group_norm)
def _(
    x: torch.Tensor, *, name: str, groups: int, epsilon: float, scale: Sequence[float], shift: Sequence[float]
) -> torch.Tensor:
    _check(x, name, groups, epsilon, {"scale": scale, "shift": shift})
    return x.new_empty(x.shape)


def _save(
    ctx: Any, inputs: tuple[Any, ...], keyword_only_inputs: dict[str, Any], output: torch.Tensor
) -> None:
    ctx.keywords = keyword_only_inputs
    ctx.save_for_backward(inputs[0])


def _backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
    """torch's own, of the same function in float64."""
    (x,) = ctx.saved_tensors
    given = ctx.keywords
    scale, shift = (torch.tensor(given[n], dtype=torch.float64, device=x.device) for n in ("scale", "shift"))
    with torch.enable_grad():
        values = x.detach().double().requires_grad_()
        made = torch.nn.functional.group_norm(values, given["groups"], scale, shift, given["epsilon"])
        (found,) = torch.autograd.grad(made, values, grad.double())
    return found.to(x.dtype)


group_norm.register_autograd(_backward, setup_context=_save)
