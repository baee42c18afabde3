# SPDX-License-Identifier: Apache-2.0
"""The largest, mean or sum of all sites of each batch entry."""

from __future__ import annotations

from typing import Any

import torch

from scn_fx.errors import SiteError
from scn_fx.operators.global_pool import CHUNK, GLOBAL_POOL
from scn_fx.ops.checks import (
    check_batch,
    check_features,
    check_pooling,
    check_sites,
    shape_text,
    to_half,
)
from scn_fx.ops.dispatch import define, fake, only_shapes_matter
from scn_fx.ops.pool import pooled

__all__ = ["global_pool"]


def _check(features: torch.Tensor, indices: torch.Tensor, name: str, kind: str, batch_size: int) -> None:
    check_features(name, features)
    check_sites(name, indices)
    check_pooling(name, kind)
    check_batch(name, batch_size)


@define(GLOBAL_POOL.name, GLOBAL_POOL.schema)
def global_pool(
    features: torch.Tensor, indices: torch.Tensor, *, name: str, kind: str, batch_size: int
) -> torch.Tensor:
    """Pooled features [batch_size, C] of float features [N, C] on the sites `indices`; their dtype.

    `kind` "max" is the largest value of a batch entry, NaN if one is. "sum" is made in float64, of its rows
    in ascending order of their sites: those of each chunk of 256 one after another, and then the sums of the
    chunks; it is rounded to float32, and where features are float16 to that. "mean" is the float64 sum
    divided by the number of rows, rounded in the same way. An entry without sites is zero.
    """
    _check(features, indices, name, kind, batch_size)
    if only_shapes_matter():
        return features.new_zeros((batch_size, features.shape[1]))
    _check_rows(features, indices, name, batch_size)
    if not features.shape[0]:
        return features.new_zeros((batch_size, features.shape[1]))
    chunks, entries = _maps(indices, batch_size)
    order = "max" if kind == "max" else "sum"
    made = pooled(pooled(features.double(), chunks, order), entries, order)
    if kind == "mean":
        made = made / _counts(indices, batch_size).clamp(min=1).unsqueeze(1).double()
    made = made.float()
    return to_half(name, "its result", made) if features.dtype == torch.float16 else made.to(features.dtype)


def _check_rows(features: torch.Tensor, indices: torch.Tensor, name: str, batch_size: int) -> None:
    if features.shape[0] != indices.shape[0]:
        raise SiteError(
            f"Layer {name!r}: expected one feature row per site, got features {shape_text(features)} and "
            f"indices {shape_text(indices)}. Pass features and indices of the same frame."
        )
    if not indices.shape[0]:
        return
    low, high = (int(value) for value in indices[:, 0].aminmax())
    if low < 0 or high >= batch_size:
        raise SiteError(
            f"Layer {name!r}: batch indices must be 0 to {batch_size - 1} for a batch size of {batch_size}, "
            f"got {low if low < 0 else high}. Pass the batch size of the frame, or its own indices."
        )


def _counts(indices: torch.Tensor, batch_size: int) -> torch.Tensor:
    """Sites of each batch entry, int64 [batch_size]."""
    return torch.bincount(indices[:, 0].long(), minlength=batch_size)


def _maps(indices: torch.Tensor, batch_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The rows of each chunk, and the chunks of each batch entry, in their order; -1 where there are none."""
    order = torch.arange(len(indices), device=indices.device)
    for column in reversed(indices.unbind(1)):
        order = order[column[order].argsort(stable=True)]
    counts = _counts(indices, batch_size)
    ends = (counts + CHUNK - 1).div(CHUNK, rounding_mode="floor").cumsum(0)
    of_entry = torch.diff(ends, prepend=ends.new_zeros(1))
    entry = indices[:, 0].long()[order]
    place = torch.arange(len(order), device=order.device) - (counts.cumsum(0) - counts)[entry]
    chunk = place.div(CHUNK, rounding_mode="floor")
    chunks = order.new_full((int(ends[-1]), min(CHUNK, int(counts.max()))), -1)
    chunks[(ends - of_entry)[entry] + chunk, place % CHUNK] = order
    number = torch.arange(int(of_entry.max()), device=order.device)
    entries = torch.where(number < of_entry.unsqueeze(1), (ends - of_entry).unsqueeze(1) + number, -1)
    return chunks, entries


@fake(global_pool)
def _(
    features: torch.Tensor, indices: torch.Tensor, *, name: str, kind: str, batch_size: int
) -> torch.Tensor:
    _check(features, indices, name, kind, batch_size)
    return features.new_empty((batch_size, features.shape[1]))


def _save(
    ctx: Any, inputs: tuple[Any, ...], keyword_only_inputs: dict[str, Any], output: torch.Tensor
) -> None:
    ctx.kind = keyword_only_inputs["kind"]
    ctx.save_for_backward(*inputs, output)


def _backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
    """Of a sum to all rows, of a mean a share to each, of a maximum to all that are it."""
    features, indices, output = ctx.saved_tensors
    grad = grad.float()
    if ctx.kind == "mean":
        grad = grad / _counts(indices, len(grad)).clamp(min=1).unsqueeze(1).float()
    entry = indices[:, 0].long()
    made = grad[entry]
    if ctx.kind == "max":
        made = torch.where(features == output[entry], made, torch.zeros_like(made))
    return made.to(features.dtype), None


global_pool.register_autograd(_backward, setup_context=_save)
