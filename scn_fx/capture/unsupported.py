# SPDX-License-Identifier: Apache-2.0
"""Stand-ins for what a graph cannot hold: the forward goes on, and only an output that needs one fails."""

from __future__ import annotations

from typing import Any

import torch

from scn_fx.errors import CaptureError

__all__ = ["stand_in"]


@torch.library.custom_op(
    "scn_fx::unsupported",
    mutates_args=(),
    schema="(Tensor features, Tensor indices, *, str reason, int channels, int ndim, bool new_sites) -> "
    "(Tensor, Tensor)",
)
def _unsupported(
    features: torch.Tensor, indices: torch.Tensor, *, reason: str, channels: int, ndim: int, new_sites: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    raise CaptureError(reason)


@_unsupported.register_fake
def _(
    features: torch.Tensor, indices: torch.Tensor, *, reason: str, channels: int, ndim: int, new_sites: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    rows = torch.library.get_ctx().new_dynamic_size(min=2) if new_sites else features.shape[0]
    return features.new_empty(rows, channels), indices.new_empty(rows, ndim + 1)


def stand_in(
    tensor: Any, reason: str, channels: int, shape: list[int] | None = None, *, new_sites: bool = True
) -> Any:
    """A SparseConvTensor in the place of a result that cannot be captured.

    Args:
        tensor: the SparseConvTensor that the operation reads.
        reason: the error's text, should the chosen output depend on the result.
        channels: width of the result.
        shape: its grid; None for that of `tensor`.
        new_sites: whether the result has other sites than `tensor`.
    """
    shape = list(tensor.spatial_shape if shape is None else shape)
    features, indices = torch.ops.scn_fx.unsupported.default(
        tensor.features,
        tensor.indices,
        reason=reason,
        channels=channels,
        ndim=len(shape),
        new_sites=new_sites,
    )
    result = tensor.shadow_copy().replace_feature(features)
    result.spatial_shape = shape
    if new_sites:
        result.indices = indices
    return result
