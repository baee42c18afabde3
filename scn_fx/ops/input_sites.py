# SPDX-License-Identifier: Apache-2.0
"""Placeholder sites for the ONNX view, whose only input is the features."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch

from scn_fx.errors import SiteError
from scn_fx.geometry import Triple, triple
from scn_fx.operators.maps import INPUT_SITES
from scn_fx.ops.checks import shape_text
from scn_fx.ops.dispatch import define, fake

__all__ = ["input_sites"]


def _grid(features: torch.Tensor, spatial_shape: Sequence[int]) -> Triple | None:
    if features.dim() < 1:
        raise SiteError(f"Expected features [N, C], got {shape_text(features)}.")
    return triple(spatial_shape, "spatial_shape", 1) if spatial_shape else None


@define(INPUT_SITES.name, INPUT_SITES.schema)
def input_sites(features: torch.Tensor, *, spatial_shape: Sequence[int] = ()) -> torch.Tensor:
    """Distinct sites, int32 [N, 4] (batch, z, y, x), for the N rows of `features`.

    libspconv's graphs have one input and take the indices aside. The view of a graph therefore makes its
    indices with this operator, whose ONNX translation emits nothing. The sites fill the grid `spatial_shape`
    (z, y, x) with x fastest; without one they form a row along x.
    """
    given = _grid(features, spatial_shape)
    count = features.shape[0]
    grid = list(given or (1, 1, max(count, 1)))
    if count > min(prod(grid), 2**31 - 1):
        raise SiteError(
            f"Expected at most {prod(grid)} sites on a grid of {grid}, got features {shape_text(features)}."
        )
    row = torch.arange(count, dtype=torch.int64, device=features.device)
    x, rest = row % grid[2], row // grid[2]
    return torch.stack([torch.zeros_like(row), rest // grid[1], rest % grid[1], x], 1).to(torch.int32)


@fake(input_sites)
def _(features: torch.Tensor, *, spatial_shape: Sequence[int] = ()) -> torch.Tensor:
    _grid(features, spatial_shape)
    return features.new_empty((features.shape[0], 4), dtype=torch.int32)
