# SPDX-License-Identifier: Apache-2.0
"""A ReLU that no convolution or addition absorbed."""

from __future__ import annotations

from typing import Any

import torch

from scn_fx.errors import SiteError
from scn_fx.ops.checks import FLOATS, FLOATS_TEXT, relu_gradient, shape_text
from scn_fx.ops.dispatch import define, fake

__all__ = ["relu"]


def _check(x: torch.Tensor, name: str) -> None:
    if x.dtype not in FLOATS:
        raise SiteError(
            f"Layer {name!r}: features must be {FLOATS_TEXT}, got {shape_text(x)}. Convert them first: "
            ".float()."
        )


@define("relu", "(Tensor x, *, str name) -> Tensor")
def relu(x: torch.Tensor, *, name: str) -> torch.Tensor:
    """``max(x, 0)``, same shape and dtype; NaN stays NaN, and -0 becomes +0 (which torch.relu leaves)."""
    _check(x, name)
    return torch.where(x <= 0, x.new_zeros(()), x)


@fake(relu)
def _(x: torch.Tensor, *, name: str) -> torch.Tensor:
    _check(x, name)
    return x.new_empty(x.shape)


def _save(
    ctx: Any, inputs: tuple[Any, ...], keyword_only_inputs: dict[str, Any], output: torch.Tensor
) -> None:
    ctx.save_for_backward(output)


def _backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
    (output,) = ctx.saved_tensors
    return relu_gradient(grad, output)


relu.register_autograd(_backward, setup_context=_save)
