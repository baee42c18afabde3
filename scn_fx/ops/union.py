# SPDX-License-Identifier: Apache-2.0
"""Sums of sparse tensors on different sites of one grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from scn_fx.errors import ArgumentError, SiteError
from scn_fx.operators.union import MOST_PARTS, UNION, UNION_MAP
from scn_fx.ops.checks import (
    check_axes,
    check_batch,
    check_bound,
    check_features,
    check_kernel_map,
    check_sites,
    check_within,
    common_dtype,
    shape_text,
)
from scn_fx.ops.dispatch import define, fake, only_shapes_matter
from scn_fx.ops.known_maps import is_known, remember
from scn_fx.ops.map_call import MapCall
from scn_fx.ops.sites import lifted_sites

__all__ = ["union", "union_map"]


def _check_parts(name: str, count: int) -> None:
    if not 1 <= count <= MOST_PARTS:
        raise ArgumentError(
            f"Layer {name!r}: a union has 1 to {MOST_PARTS} inputs, got {count}. Add in several steps."
        )


def _checked(indices: Sequence[torch.Tensor], arguments: dict[str, Any]) -> MapCall:
    """What is asked for, after all checks that need no values."""
    name = arguments["name"]
    _check_parts(name, len(indices))
    for position, each in enumerate(indices):
        check_sites(name, each, f"indices {position}")
        if each.shape[1] != indices[0].shape[1]:
            raise SiteError(
                f"Layer {name!r}: all indices must have as many columns, got "
                f"{', '.join(map(shape_text, indices))}."
            )
    check_batch(name, arguments["batch_size"])
    call = MapCall.of(UNION_MAP, arguments)
    check_bound(name, call.output_bound)
    check_axes(name, indices[0], call.geometry.input_spatial_shape)
    return call


@define(UNION_MAP.name, UNION_MAP.schema)
def union_map(indices: Sequence[torch.Tensor], **arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """All sites of `indices`, int32 [M, 4], ascending, and the row of each in every part, int32 [M, K] or -1.

    `indices` are up to eight tensors int32 [N_k, 4] (batch, z, y, x), or all [N_k, 3] or [N_k, 2] on a grid
    of one cell along the axes that they lack. SiteError for sites out of range or given twice by one of them,
    BoundError for more than `output_bound` sites in all.
    """
    call = _checked(indices, arguments)
    if only_shapes_matter():
        return indices[0].clone(), indices[0].new_full((len(indices[0]), len(indices)), -1)
    keys = [_keys(each, call) for each in indices]
    found, rows = torch.unique(torch.cat(keys), return_inverse=True)
    check_within(call.name, len(found), call.output_bound)
    made = indices[0].new_full((len(found), len(keys)), -1)
    for part, (own, at) in enumerate(zip(keys, rows.split([len(key) for key in keys]), strict=True)):
        made[at, part] = torch.arange(len(own), dtype=torch.int32, device=made.device)
        _check_distinct(made[:, part], own, call.name, part)
    return _sites(found, call, indices[0].shape[1]), remember(made, tuple(map(len, keys)))


def _keys(indices: torch.Tensor, call: MapCall) -> torch.Tensor:
    """The number of each site's cell, int64 [N]; cells are numbered in the order of (batch, z, y, x)."""
    sites = lifted_sites(indices).long()
    sizes = (call.batch_size, *call.geometry.input_spatial_shape)
    outside = (sites < 0).any(1) | (sites >= torch.tensor(sizes, device=sites.device)).any(1)
    if bool(outside.any()):
        row = int(outside.nonzero()[0])
        raise SiteError(
            f"Layer {call.name!r}: site {indices[row].tolist()} in row {row} is outside of {call.batch_size} "
            f"grid(s) of {list(sizes[1:])}. Indices are (batch, z, y, x)."
        )
    keys = sites[:, 0]
    for axis in (1, 2, 3):
        keys = keys * sizes[axis] + sites[:, axis]
    return keys


def _sites(keys: torch.Tensor, call: MapCall, columns: int) -> torch.Tensor:
    made = []
    for size in reversed(call.geometry.input_spatial_shape):
        made.append(keys % size)
        keys = torch.div(keys, size, rounding_mode="floor")
    return torch.stack([keys, *made[: columns - 1][::-1]], 1).int()


def _check_distinct(column: torch.Tensor, keys: torch.Tensor, name: str, part: int) -> None:
    found = int((column >= 0).sum())
    if found != len(keys):
        raise SiteError(
            f"Layer {name!r}: indices {part} hold {len(keys) - found} site(s) twice. Each site needs one row."
        )


def _check(inputs: Sequence[torch.Tensor], kernel_map: torch.Tensor, name: str) -> None:
    _check_parts(name, len(inputs))
    check_kernel_map(name, kernel_map, len(inputs))
    for position, each in enumerate(inputs):
        check_features(name, each, f"input {position}")
        if each.shape[1] != inputs[0].shape[1]:
            raise SiteError(
                f"Layer {name!r}: all inputs must have the same channels, got "
                f"{', '.join(map(shape_text, inputs))}."
            )


@define(UNION.name, UNION.schema)
def union(inputs: Sequence[torch.Tensor], kernel_map: torch.Tensor, *, name: str) -> torch.Tensor:
    """For each row of a union's map, int32 [M, K], the sum of its rows in the K `inputs`: [M, C].

    Inputs are float [N_k, C]. Sums are made in float32, in the order of the inputs, beginning at +0, and
    rounded to float16 if all inputs are.
    """
    _check(inputs, kernel_map, name)
    made = torch.zeros((len(kernel_map), inputs[0].shape[1]), device=kernel_map.device)
    if only_shapes_matter():
        return made.to(common_dtype(inputs))
    known = is_known(kernel_map, tuple(map(len, inputs)))
    for part, (x, rows) in enumerate(zip(inputs, kernel_map.long().unbind(1), strict=True)):
        if not known:
            _check_rows(kernel_map, part, len(x), name)
        if len(x):
            there = (rows >= 0).unsqueeze(1)
            made = torch.where(there, made + x.float()[rows.clamp(min=0)], made)
    return made.to(common_dtype(inputs))


def _check_rows(kernel_map: torch.Tensor, part: int, rows: int, name: str) -> None:
    """Every entry of a map that nobody vouches for must be -1 or a row."""
    if not len(kernel_map):
        return
    low, high = (int(value) for value in kernel_map[:, part].aminmax())
    if low < -1 or high >= rows:
        raise SiteError(
            f"Layer {name!r}: the map reads row {low if low < -1 else high} of input {part}, which has "
            f"{rows} rows. Build the map from the same sites as the features."
        )


@fake(union_map)
def _(indices: Sequence[torch.Tensor], **arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
    call = _checked(indices, arguments)
    try:
        count = torch.library.get_ctx().new_dynamic_size(min=2)
    except RuntimeError as error:
        raise ArgumentError(
            f"Layer {call.name!r}: how many sites a union has depends on their coordinates, which tensors on "
            "the device 'meta' do not have. Pass real ones, or trace with torch.export."
        ) from error
    first = indices[0]
    return first.new_empty((count, first.shape[1])), first.new_empty((count, len(indices)))


@fake(union)
def _(inputs: Sequence[torch.Tensor], kernel_map: torch.Tensor, *, name: str) -> torch.Tensor:
    _check(inputs, kernel_map, name)
    return inputs[0].new_empty((kernel_map.shape[0], inputs[0].shape[1]), dtype=common_dtype(inputs))


def _save(
    ctx: Any, inputs: tuple[Any, ...], keyword_only_inputs: dict[str, Any], output: torch.Tensor
) -> None:
    parts, kernel_map = inputs
    ctx.like = [(each.shape, each.dtype) for each in parts]
    ctx.save_for_backward(kernel_map)


def _backward(ctx: Any, grad: torch.Tensor) -> tuple[list[torch.Tensor], None]:
    (kernel_map,) = ctx.saved_tensors
    made = []
    for (shape, dtype), rows in zip(ctx.like, kernel_map.long().unbind(1), strict=True):
        there = rows >= 0
        part = torch.zeros(shape, device=grad.device)
        part[rows[there]] = grad.float()[there]
        made.append(part.to(dtype))
    return made, None


union.register_autograd(_backward, setup_context=_save)
