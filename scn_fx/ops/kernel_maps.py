# SPDX-License-Identifier: Apache-2.0
"""Kernel maps: which input site each kernel offset of each output site reads.

A map is int32 [M, K]; entry (m, k) is the row of the input site, or -1. Offsets ascend by (kz, ky, kx), kx
fastest. Maps depend on indices alone, so layers that share an ``indice_key`` share one map as a value of the
graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from scn_fx.errors import ArgumentError
from scn_fx.geometry import ConvGeometry
from scn_fx.ops.checks import (
    check_batch,
    check_bound,
    check_kernel_map,
    check_sites,
    geometry_of,
    submanifold_of,
)
from scn_fx.ops.devices import kernels_for
from scn_fx.ops.dispatch import define, fake, only_shapes_matter

__all__ = ["conv_map", "inverse_map", "subm_map"]


def _check_subm(
    indices: torch.Tensor,
    name: str,
    batch_size: int,
    spatial_shape: Sequence[int],
    kernel_size: Sequence[int],
    dilation: Sequence[int],
) -> ConvGeometry:
    check_sites(name, indices)
    check_batch(name, batch_size)
    return submanifold_of(name, spatial_shape, kernel_size, dilation)


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
    geometry = _check_subm(indices, name, batch_size, spatial_shape, kernel_size, dilation)
    if only_shapes_matter():
        return indices.new_full((indices.shape[0], geometry.volume), -1)
    return kernels_for(indices).subm_map(indices, name, batch_size, spatial_shape, kernel_size, dilation)


@fake(subm_map)
def _(
    indices: torch.Tensor,
    *,
    name: str,
    batch_size: int,
    spatial_shape: Sequence[int],
    kernel_size: Sequence[int],
    dilation: Sequence[int],
) -> torch.Tensor:
    geometry = _check_subm(indices, name, batch_size, spatial_shape, kernel_size, dilation)
    return indices.new_empty((indices.shape[0], geometry.volume))


def _check_conv(
    indices: torch.Tensor, name: str, batch_size: int, output_bound: int, **numbers: Any
) -> ConvGeometry:
    """Geometry of a strided or transposed map; the output grid is given: a transposed one is not unique."""
    check_sites(name, indices)
    check_batch(name, batch_size)
    check_bound(name, output_bound)
    return geometry_of(name, **numbers)


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
    geometry = _check_conv(
        indices,
        name,
        batch_size,
        output_bound,
        input_spatial_shape=input_spatial_shape,
        output_spatial_shape=output_spatial_shape,
        kernel_size=kernel_size,
        stride=stride,
        padding=padding,
        dilation=dilation,
        transposed=transposed,
    )
    if only_shapes_matter():
        return indices.clone(), indices.new_full((indices.shape[0], geometry.volume), -1)
    return kernels_for(indices).conv_map(
        indices, name, batch_size, input_spatial_shape, output_spatial_shape, kernel_size, stride, padding,
        dilation, transposed, output_bound,
    )  # fmt: skip


@fake(conv_map)
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
    geometry = _check_conv(
        indices,
        name,
        batch_size,
        output_bound,
        input_spatial_shape=input_spatial_shape,
        output_spatial_shape=output_spatial_shape,
        kernel_size=kernel_size,
        stride=stride,
        padding=padding,
        dilation=dilation,
        transposed=transposed,
    )
    # The count depends on the data. A minimum of 2 keeps torch from specialising on the sizes 0 and 1.
    try:
        count = torch.library.get_ctx().new_dynamic_size(min=2)
    except RuntimeError as error:
        raise ArgumentError(
            f"Layer {name!r}: how many sites a strided convolution has depends on their coordinates, which "
            "tensors on the device 'meta' do not have. Pass real ones, or trace with torch.export."
        ) from error
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
    return kernels_for(kernel_map).inverse_map(kernel_map, indices.shape[0], name)


@fake(inverse_map)
def _(kernel_map: torch.Tensor, indices: torch.Tensor, *, name: str) -> torch.Tensor:
    check_sites(name, indices)
    check_kernel_map(name, kernel_map)
    return kernel_map.new_empty((indices.shape[0], kernel_map.shape[1]))
