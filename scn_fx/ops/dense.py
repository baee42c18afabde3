# SPDX-License-Identifier: Apache-2.0
"""From sites to a dense map, and the reshapes that turn it into a bird's-eye view."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch

from scn_fx.errors import ScnError, SiteError
from scn_fx.geometry import triple
from scn_fx.operators.dense import RESHAPE, SCATTER_DENSE, TRANSPOSE
from scn_fx.ops.checks import check_axes, check_batch, check_dense, check_features, check_sites, shape_text
from scn_fx.ops.devices import kernels_for
from scn_fx.ops.dispatch import define, fake, only_shapes_matter
from scn_fx.ops.sites import lifted_sites

__all__ = ["reshape", "scatter_dense", "transpose"]

FORMATS = ("zyx", "xyz")


def _check_scatter(
    features: torch.Tensor,
    indices: torch.Tensor,
    name: str,
    format: str,
    batch_size: int,
    spatial_shape: Sequence[int],
) -> None:
    check_features(name, features)
    check_sites(name, indices)
    if format not in FORMATS:
        raise ScnError(f"Layer {name!r}: format must be one of {', '.join(FORMATS)}, got {format!r}.")
    check_batch(name, batch_size)
    grid = triple(spatial_shape, f"Layer {name!r}: spatial_shape", 1)
    check_axes(name, indices, grid)
    check_dense(name, batch_size, features.shape[1], grid)


@define(SCATTER_DENSE.name, SCATTER_DENSE.schema)
def scatter_dense(
    features: torch.Tensor,
    indices: torch.Tensor,
    *,
    name: str,
    format: str,
    batch_size: int,
    spatial_shape: Sequence[int],
) -> torch.Tensor:
    """Write `features` [N, C] to their sites in a zero map [batch_size, C, *spatial_shape] of the same dtype.

    `format` names the order of the spatial axes, both of `indices` and of the map. `indices` are int32
    [N, 4], or [N, 3] or [N, 2] where the leading axes of `spatial_shape`, which has three, have one cell.
    """
    _check_scatter(features, indices, name, format, batch_size, spatial_shape)
    if only_shapes_matter():
        return features.new_zeros((batch_size, features.shape[1], *spatial_shape))
    if features.shape[0] != indices.shape[0]:
        raise SiteError(
            f"Layer {name!r}: expected one feature row per site, got features {shape_text(features)} and "
            f"indices {shape_text(indices)}. Pass features and indices of the same frame."
        )
    sites = lifted_sites(indices)
    return kernels_for(features).scatter_dense(features, sites, name, batch_size, spatial_shape)


@fake(scatter_dense)
def _(
    features: torch.Tensor,
    indices: torch.Tensor,
    *,
    name: str,
    format: str,
    batch_size: int,
    spatial_shape: Sequence[int],
) -> torch.Tensor:
    _check_scatter(features, indices, name, format, batch_size, spatial_shape)
    return features.new_empty((batch_size, features.shape[1], *spatial_shape))


def _save_scatter(
    ctx: Any, inputs: tuple[Any, ...], keyword_only_inputs: dict[str, Any], output: torch.Tensor
) -> None:
    ctx.save_for_backward(inputs[1])


def _backward_scatter(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
    (indices,) = ctx.saved_tensors
    batch, z, y, x = lifted_sites(indices).long().unbind(1)
    return grad[batch, :, z, y, x], None


scatter_dense.register_autograd(_backward_scatter, setup_context=_save_scatter)


def _reshaped(x: torch.Tensor, name: str, dims: Sequence[int]) -> list[int]:
    """The shape that `dims` asks for, with one possible -1 resolved."""
    given = prod(x.shape)
    known = prod(d for d in dims if d != -1)
    wanted = [given // known if d == -1 and known else d for d in dims]
    if min(wanted, default=1) < 0 or list(dims).count(-1) > 1 or prod(wanted) != given:
        raise ScnError(
            f"Layer {name!r}: expected a shape of {given} values (at most one of them -1) to reshape "
            f"{list(x.shape)}, got {list(dims)}."
        )
    # without values too: steps along its axes are computed from all others
    if not given and prod(max(d, 1) for d in wanted) * 8 >= 2**63:
        raise ScnError(f"Layer {name!r}: a tensor of shape {list(dims)} is more than 63 bits can number.")
    return wanted


@define(RESHAPE.name, RESHAPE.schema)
def reshape(x: torch.Tensor, *, name: str, dims: Sequence[int]) -> torch.Tensor:
    """A contiguous copy of `x` with shape `dims`; one of them may be -1."""
    return x.reshape(_reshaped(x, name, dims)).clone(memory_format=torch.contiguous_format)


@fake(reshape)
def _(x: torch.Tensor, *, name: str, dims: Sequence[int]) -> torch.Tensor:
    return x.new_empty(_reshaped(x, name, dims))


def _save_reshape(
    ctx: Any, inputs: tuple[Any, ...], keyword_only_inputs: dict[str, Any], output: torch.Tensor
) -> None:
    ctx.shape = inputs[0].shape


def _backward_reshape(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
    return grad.reshape(ctx.shape)


reshape.register_autograd(_backward_reshape, setup_context=_save_reshape)


def _permutation(x: torch.Tensor, name: str, dims: Sequence[int]) -> list[int]:
    axes = [int(d) + x.dim() if d < 0 else int(d) for d in dims]
    if sorted(axes) != list(range(x.dim())):
        raise ScnError(
            f"Layer {name!r}: expected a permutation of the {x.dim()} axes of {list(x.shape)}, got "
            f"{list(dims)}."
        )
    return axes


@define(TRANSPOSE.name, TRANSPOSE.schema)
def transpose(x: torch.Tensor, *, name: str, dims: Sequence[int]) -> torch.Tensor:
    """A contiguous copy of `x` with its axes in the order `dims` (as torch.permute)."""
    return x.permute(_permutation(x, name, dims)).clone(memory_format=torch.contiguous_format)


@fake(transpose)
def _(x: torch.Tensor, *, name: str, dims: Sequence[int]) -> torch.Tensor:
    return x.new_empty([x.shape[axis] for axis in _permutation(x, name, dims)])


def _save_transpose(
    ctx: Any, inputs: tuple[Any, ...], keyword_only_inputs: dict[str, Any], output: torch.Tensor
) -> None:
    ctx.axes = _permutation(inputs[0], keyword_only_inputs["name"], keyword_only_inputs["dims"])


def _backward_transpose(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
    back = sorted(range(len(ctx.axes)), key=ctx.axes.__getitem__)
    return grad.permute(back)


transpose.register_autograd(_backward_transpose, setup_context=_save_transpose)
