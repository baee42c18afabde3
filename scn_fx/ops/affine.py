# SPDX-License-Identifier: Apache-2.0
"""A scale and a shift for each channel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from scn_fx.errors import ArgumentError
from scn_fx.operators.affine import AFFINE
from scn_fx.ops.checks import check_features
from scn_fx.ops.dispatch import define, fake
from scn_fx.ops.straight_through import on_device

__all__ = ["affine", "check_numbers"]


def check_numbers(name: str, channels: int, numbers: Mapping[str, Sequence[float]]) -> None:
    """Finite float32 numbers, one for each channel."""
    for what, values in numbers.items():
        if len(values) != channels:
            raise ArgumentError(
                f"Layer {name!r}: {what} must have a number for each of the {channels} channels of its "
                f"features, got {len(values)}."
            )
        if not all(abs(value) < 2.0**128 for value in values):
            raise ArgumentError(f"Layer {name!r}: {what} must hold finite float32 numbers.")


def _check(x: torch.Tensor, name: str, scale: Sequence[float], shift: Sequence[float]) -> None:
    check_features(name, x)
    check_numbers(name, x.shape[1], {"scale": scale, "shift": shift})


@define(AFFINE.name, AFFINE.schema)
def affine(x: torch.Tensor, *, name: str, scale: Sequence[float], shift: Sequence[float]) -> torch.Tensor:
    """``x * scale + shift`` in float32, both operations rounded, of a float tensor [N, C]; its dtype."""
    _check(x, name, scale, shift)
    return (x.float() * on_device(scale, x.device) + on_device(shift, x.device)).to(x.dtype)


@fake(affine)
def _(x: torch.Tensor, *, name: str, scale: Sequence[float], shift: Sequence[float]) -> torch.Tensor:
    _check(x, name, scale, shift)
    return x.new_empty(x.shape)


def _save(
    ctx: Any, inputs: tuple[Any, ...], keyword_only_inputs: dict[str, Any], output: torch.Tensor
) -> None:
    ctx.scale = keyword_only_inputs["scale"]


def _backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor]:
    return ((grad.float() * on_device(ctx.scale, grad.device)).to(grad.dtype),)


affine.register_autograd(_backward, setup_context=_save)
