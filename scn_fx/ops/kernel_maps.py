# SPDX-License-Identifier: Apache-2.0
"""Kernel maps: which input site each kernel offset of each output site reads.

A map is int32 [M, K]; entry (m, k) is the row of the input site, or -1. Offsets ascend by (kz, ky, kx), kx
fastest. Maps depend on indices alone, so layers that share an ``indice_key`` share one map as a value of the
graph.
"""

from __future__ import annotations

from typing import Any

import torch

from scn_fx.errors import ArgumentError
from scn_fx.geometry import MOST_SITES
from scn_fx.operators.maps import CONV_MAP, INVERSE_MAP, SUBM_MAP
from scn_fx.operators.spec import OperatorSpec
from scn_fx.ops.checks import (
    check_axes,
    check_batch,
    check_bound,
    check_kernel_map,
    check_sites,
    check_within,
)
from scn_fx.ops.devices import kernels_for
from scn_fx.ops.dispatch import define, fake, only_shapes_matter
from scn_fx.ops.known_maps import note_rows
from scn_fx.ops.map_call import MapCall
from scn_fx.ops.sites import lifted_sites, narrowed_sites

__all__ = ["conv_map", "inverse_map", "subm_map"]


def _checked(spec: OperatorSpec, indices: torch.Tensor, arguments: dict[str, Any]) -> MapCall:
    """What is asked for, after all checks that need no values. Arguments are the schema's keywords."""
    name = arguments["name"]
    check_sites(name, indices)
    check_batch(name, arguments["batch_size"])
    check_bound(name, arguments.get("output_bound", MOST_SITES))
    call = MapCall.of(spec, arguments)
    check_axes(name, indices, call.geometry.input_spatial_shape)
    check_axes(name, indices, call.geometry.output_spatial_shape)
    return call


@define(SUBM_MAP.name, SUBM_MAP.schema)
def subm_map(indices: torch.Tensor, **arguments: Any) -> torch.Tensor:
    """Kernel map of a submanifold convolution: int32 [N, K], rows in the order of `indices`.

    `indices` is int32 [N, 4] (batch, z, y, x), or [N, 3] or [N, 2] on a grid of one cell along the axes that
    they lack. SiteError for sites out of range or given twice, BoundError
    for more than `output_bound` of them.
    """
    call = _checked(SUBM_MAP, indices, arguments)
    rows = indices.shape[0]
    if only_shapes_matter():
        return indices.new_full((rows, call.geometry.volume), -1)
    check_within(call.name, rows, call.output_bound)
    return note_rows(kernels_for(indices).subm_map(lifted_sites(indices), call), rows)


@fake(subm_map)
def _(indices: torch.Tensor, **arguments: Any) -> torch.Tensor:
    call = _checked(SUBM_MAP, indices, arguments)
    return indices.new_empty((indices.shape[0], call.geometry.volume))


@define(CONV_MAP.name, CONV_MAP.schema)
def conv_map(indices: torch.Tensor, **arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Output sites of a strided or transposed convolution, int32 [M, 4], and its kernel map, int32 [M, K].

    `indices` are int32 [N, 4], or [N, 3] or [N, 2] as those of `subm_map`; output sites have as many columns.

    Every site that at least one input reaches is an output site; they ascend by (batch, z, y, x). SiteError
    for sites out of range or given twice, BoundError for more than `output_bound` output sites.
    """
    call = _checked(CONV_MAP, indices, arguments)
    if only_shapes_matter():
        return indices.clone(), indices.new_full((indices.shape[0], call.geometry.volume), -1)
    sites, made = kernels_for(indices).conv_map(lifted_sites(indices), call)
    return narrowed_sites(sites, indices.shape[1]), note_rows(made, indices.shape[0])


@fake(conv_map)
def _(indices: torch.Tensor, **arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
    call = _checked(CONV_MAP, indices, arguments)
    # The count depends on the data. A minimum of 2 keeps torch from specialising on the sizes 0 and 1.
    try:
        count = torch.library.get_ctx().new_dynamic_size(min=2)
    except RuntimeError as error:
        raise ArgumentError(
            f"Layer {call.name!r}: how many sites a strided convolution has depends on their coordinates, "
            "which tensors on the device 'meta' do not have. Pass real ones, or trace with torch.export."
        ) from error
    return indices.new_empty((count, indices.shape[1])), indices.new_empty((count, call.geometry.volume))


def _check_inverse(kernel_map: torch.Tensor, indices: torch.Tensor, name: str, output_bound: int) -> None:
    check_sites(name, indices)
    check_kernel_map(name, kernel_map)
    check_bound(name, output_bound)


@define(INVERSE_MAP.name, INVERSE_MAP.schema)
def inverse_map(
    kernel_map: torch.Tensor, indices: torch.Tensor, *, name: str, output_bound: int = MOST_SITES
) -> torch.Tensor:
    """The map of an inverse convolution: int32 [N, K], the two sides of its partner's `kernel_map` swapped.

    `kernel_map` is the partner's, int32 [M, K]; `indices` are the partner's *input* sites, int32 [N, 4], to
    which the inverse convolution returns. Offsets keep their index: where the partner's output m reads input
    n at offset k, entry (n, k) of the result is m. BoundError for more than `output_bound` sites.
    """
    _check_inverse(kernel_map, indices, name, output_bound)
    rows = indices.shape[0]
    if only_shapes_matter():
        return kernel_map.new_full((rows, kernel_map.shape[1]), -1)
    check_within(name, rows, output_bound)
    return note_rows(kernels_for(kernel_map).inverse_map(kernel_map, rows, name), kernel_map.shape[0])


@fake(inverse_map)
def _(
    kernel_map: torch.Tensor, indices: torch.Tensor, *, name: str, output_bound: int = MOST_SITES
) -> torch.Tensor:
    _check_inverse(kernel_map, indices, name, output_bound)
    return kernel_map.new_empty((indices.shape[0], kernel_map.shape[1]))
