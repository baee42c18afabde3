# SPDX-License-Identifier: Apache-2.0
"""Feature tensors of the same sites, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from scn_fx.errors import SiteError
from scn_fx.operators.concat import CONCAT
from scn_fx.ops.checks import check_channels, check_features, common_dtype, shape_text
from scn_fx.ops.dispatch import define, fake, only_shapes_matter

__all__ = ["concat"]


def _check(inputs: Sequence[torch.Tensor], name: str) -> None:
    for position, each in enumerate(inputs):
        check_features(name, each, f"input {position}")
    check_channels(name, "the result", sum(each.shape[1] for each in inputs))


@define(CONCAT.name, CONCAT.schema)
def concat(inputs: Sequence[torch.Tensor], *, name: str) -> torch.Tensor:
    """The channels of all `inputs`, float tensors [N, C_i] on the same sites, in their order: [N, ΣC_i].

    float16 if all of them are, float32 as soon as one is.
    """
    _check(inputs, name)
    if not only_shapes_matter() and len({each.shape[0] for each in inputs}) > 1:
        raise SiteError(
            f"Layer {name!r}: all inputs must lie on the same sites, got "
            f"{', '.join(map(shape_text, inputs))}."
        )
    return torch.cat([each.to(common_dtype(inputs)) for each in inputs], 1)


@fake(concat)
def _(inputs: Sequence[torch.Tensor], *, name: str) -> torch.Tensor:
    _check(inputs, name)
    width = sum(each.shape[1] for each in inputs)
    return inputs[0].new_empty((inputs[0].shape[0], width), dtype=common_dtype(inputs))


def _save(
    ctx: Any, inputs: tuple[Any, ...], keyword_only_inputs: dict[str, Any], output: torch.Tensor
) -> None:
    ctx.like = [(each.shape[1], each.dtype) for each in inputs[0]]


def _backward(ctx: Any, grad: torch.Tensor) -> tuple[list[torch.Tensor]]:
    parts = grad.split([width for width, _ in ctx.like], 1)
    return ([part.to(dtype) for part, (_, dtype) in zip(parts, ctx.like, strict=True)],)


concat.register_autograd(_backward, setup_context=_save)
