# SPDX-License-Identifier: Apache-2.0
"""Kernel maps: which input site each kernel offset of each output site reads.

A map is int32 [M, K]; entry (m, k) is the row of the input site, or -1. Offsets ascend by (kz, ky, kx), kx
fastest. Maps depend on indices alone, so layers that share an ``indice_key`` share one map as a value of the
graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch

from scn_fx.errors import SiteError
from scn_fx.geometry import ConvGeometry
from scn_fx.ops.checks import check_kernel_map, check_sites
from scn_fx.ops.dispatch import array, core, define, only_shapes_matter

__all__ = ["conv_map", "inverse_map", "subm_map"]


@define(
    "subm_map",
    "(Tensor indices, *, str name, int batch_size, int[] spatial_shape, int[] kernel_size, int[] dilation) "
    "-> Tensor",
)
def subm_map(
    indices: torch.Tensor,
    *,
    name: str,
    batch_size: int,
    spatial_shape: Sequence[int],
    kernel_size: Sequence[int],
    dilation: Sequence[int],
) -> torch.Tensor:
    """Kernel map of a submanifold convolution: int32 [N, K], rows in the order of `indices`.

    `indices` is int32 [N, 4] (batch, z, y, x). SiteError for sites out of range or given twice.
    """
    check_sites(name, indices)
    ConvGeometry.submanifold(spatial_shape, kernel_size, dilation)
    if only_shapes_matter():
        return indices.new_full((indices.shape[0], prod(kernel_size)), -1)
    made = core().subm_map(
        array(indices), batch_size, list(spatial_shape), list(kernel_size), list(dilation), name=name
    )
    return torch.from_numpy(made)


@subm_map.register_fake
def _(
    indices: torch.Tensor,
    *,
    name: str,
    batch_size: int,
    spatial_shape: Sequence[int],
    kernel_size: Sequence[int],
    dilation: Sequence[int],
) -> torch.Tensor:
    check_sites(name, indices)
    geometry = ConvGeometry.submanifold(spatial_shape, kernel_size, dilation)
    return indices.new_empty((indices.shape[0], geometry.volume))


def _geometry(
    name: str,
    input_spatial_shape: Sequence[int],
    output_spatial_shape: Sequence[int],
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
) -> ConvGeometry:
    """Geometry of a strided or transposed map; the output grid is given: a transposed one is not unique."""
    try:
        return ConvGeometry(
            tuple(kernel_size),  # type: ignore[arg-type]
            tuple(stride),  # type: ignore[arg-type]
            tuple(padding),  # type: ignore[arg-type]
            tuple(dilation),  # type: ignore[arg-type]
            (0, 0, 0),
            tuple(input_spatial_shape),  # type: ignore[arg-type]
            tuple(output_spatial_shape),  # type: ignore[arg-type]
            transposed=transposed,
        )
    except SiteError as error:
        raise SiteError(f"Layer {name!r}: {error}") from error


@define(
    "conv_map",
    "(Tensor indices, *, str name, int batch_size, int[] input_spatial_shape, int[] output_spatial_shape, "
    "int[] kernel_size, int[] stride, int[] padding, int[] dilation, bool transposed, int output_bound) "
    "-> (Tensor, Tensor)",
)
def conv_map(
    indices: torch.Tensor,
    *,
    name: str,
    batch_size: int,
    input_spatial_shape: Sequence[int],
    output_spatial_shape: Sequence[int],
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_bound: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Output sites of a strided or transposed convolution, int32 [M, 4], and its kernel map, int32 [M, K].

    Every site that at least one input reaches is an output site; they ascend by (batch, z, y, x). SiteError
    for sites out of range or given twice, BoundError for more than `output_bound` output sites.
    """
    check_sites(name, indices)
    geometry = _geometry(
        name, input_spatial_shape, output_spatial_shape, kernel_size, stride, padding, dilation, transposed
    )
    if only_shapes_matter():
        return indices.clone(), indices.new_full((indices.shape[0], geometry.volume), -1)
    sites, made = core().conv_map(
        array(indices),
        batch_size,
        list(input_spatial_shape),
        list(output_spatial_shape),
        list(kernel_size),
        list(stride),
        list(padding),
        list(dilation),
        transposed,
        output_bound,
        name=name,
    )
    return torch.from_numpy(sites), torch.from_numpy(made)


@conv_map.register_fake
def _(
    indices: torch.Tensor,
    *,
    name: str,
    batch_size: int,
    input_spatial_shape: Sequence[int],
    output_spatial_shape: Sequence[int],
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_bound: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    check_sites(name, indices)
    geometry = _geometry(
        name, input_spatial_shape, output_spatial_shape, kernel_size, stride, padding, dilation, transposed
    )
    # The count depends on the data. A minimum of 2 keeps torch from specialising on the sizes 0 and 1.
    count = torch.library.get_ctx().new_dynamic_size(min=2)
    return indices.new_empty((count, 4)), indices.new_empty((count, geometry.volume))


@define("inverse_map", "(Tensor kernel_map, Tensor indices, *, str name) -> Tensor")
def inverse_map(kernel_map: torch.Tensor, indices: torch.Tensor, *, name: str) -> torch.Tensor:
    """The map of an inverse convolution: int32 [N, K], the two sides of its partner's `kernel_map` swapped.

    `kernel_map` is the partner's, int32 [M, K]; `indices` are the partner's *input* sites, int32 [N, 4], to
    which the inverse convolution returns. Offsets keep their index: where the partner's output m reads input
    n at offset k, entry (n, k) of the result is m.
    """
    check_sites(name, indices)
    check_kernel_map(name, kernel_map)
    if only_shapes_matter():
        return kernel_map.new_full((indices.shape[0], kernel_map.shape[1]), -1)
    return torch.from_numpy(core().inverse_map(array(kernel_map), indices.shape[0]))


@inverse_map.register_fake
def _(kernel_map: torch.Tensor, indices: torch.Tensor, *, name: str) -> torch.Tensor:
    check_sites(name, indices)
    check_kernel_map(name, kernel_map)
    return kernel_map.new_empty((indices.shape[0], kernel_map.shape[1]))
