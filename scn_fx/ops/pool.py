# SPDX-License-Identifier: Apache-2.0
"""The largest, mean or sum of the neighbours that a kernel map gives each output site."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from scn_fx.errors import SiteError
from scn_fx.operators.pool import POOL
from scn_fx.ops.checks import check_features, check_kernel_map, check_pooling
from scn_fx.ops.dispatch import define, fake, only_shapes_matter
from scn_fx.ops.known_maps import is_known

__all__ = ["pool", "pooled"]


def _check(features: torch.Tensor, kernel_map: torch.Tensor, name: str, kind: str) -> None:
    check_features(name, features)
    check_kernel_map(name, kernel_map)
    check_pooling(name, kind)


@define(POOL.name, POOL.schema)
def pool(features: torch.Tensor, kernel_map: torch.Tensor, *, name: str, kind: str) -> torch.Tensor:
    """Pooled features [M, C] of float features [N, C] over a kernel map int32 [M, K]; their dtype.

    `kind` "max" is the largest neighbour, NaN if one is; "sum" is made in float32, offsets ascending, and
    "mean" is that divided by the number of neighbours. Absent neighbours count nowhere; a site without any is
    zero.
    """
    _check(features, kernel_map, name, kind)
    if only_shapes_matter():
        return features.new_zeros((kernel_map.shape[0], features.shape[1]))
    _check_entries(kernel_map, features.shape[0], name)
    return pooled(features.float(), kernel_map, kind).to(features.dtype)


def _check_entries(kernel_map: torch.Tensor, rows: int, name: str) -> None:
    """Every entry of a map that nobody vouches for must be -1 or a row."""
    if is_known(kernel_map, rows) or not kernel_map.numel():
        return
    low, high = (int(value) for value in kernel_map.aminmax())
    if low < -1 or high >= rows:
        raise SiteError(
            f"{name}: the kernel map reads input row {low if low < -1 else high}, but there are {rows} input "
            "rows. Build the map from the same sites as the features."
        )


def pooled(x: torch.Tensor, kernel_map: torch.Tensor, kind: str) -> torch.Tensor:
    """Pooled rows of x over a map [M, K] of its rows, -1 where there is none, in the dtype of x."""
    made = x.new_zeros((kernel_map.shape[0], x.shape[1]))
    if not x.shape[0]:
        return made
    seen = torch.zeros((len(made), 1), dtype=torch.bool, device=x.device)
    for there, rows in _offsets(kernel_map):
        found = x[rows]
        if kind == "max":
            # the first neighbour takes the place of the zero
            more = torch.where(seen, _larger(made, found), found)
            seen = seen | there
        else:
            more = made + found
        made = torch.where(there, more, made)
    return made / _count(kernel_map) if kind == "mean" else made


def _offsets(kernel_map: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """For each offset: which output rows have a neighbour, [M, 1], and its row, 0 where there is none."""
    for column in kernel_map.long().unbind(1):
        yield (column >= 0).unsqueeze(1), column.clamp(min=0)


def _larger(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """The larger one, the first of two equal ones; NaN if one of them is."""
    return torch.where((b <= a) | a.isnan(), a, b)


def _count(kernel_map: torch.Tensor) -> torch.Tensor:
    """Neighbours of each output row, at least 1: float32 [M, 1]."""
    return (kernel_map >= 0).sum(1, keepdim=True).clamp(min=1).float()


@fake(pool)
def _(features: torch.Tensor, kernel_map: torch.Tensor, *, name: str, kind: str) -> torch.Tensor:
    _check(features, kernel_map, name, kind)
    return features.new_empty((kernel_map.shape[0], features.shape[1]))


def _save(
    ctx: Any, inputs: tuple[Any, ...], keyword_only_inputs: dict[str, Any], output: torch.Tensor
) -> None:
    ctx.kind = keyword_only_inputs["kind"]
    ctx.save_for_backward(*inputs, output)


def _backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
    """Of a sum to all neighbours, of a mean a share to each, of a maximum to all that are it as spconv."""
    features, kernel_map, output = ctx.saved_tensors
    grad = grad.float()
    if ctx.kind == "mean":
        grad = grad / _count(kernel_map)
    made = torch.zeros_like(features, dtype=torch.float32)
    for there, rows in _offsets(kernel_map):
        if not len(made):
            break
        goes = there if ctx.kind != "max" else there & (features[rows] == output)
        made.index_add_(0, rows, torch.where(goes, grad, torch.zeros_like(grad)))
    return made.to(features.dtype), None


pool.register_autograd(_backward, setup_context=_save)
