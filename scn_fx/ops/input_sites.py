# SPDX-License-Identifier: Apache-2.0
"""Placeholder sites for the ONNX view, whose only input is the features."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch

from scn_fx.errors import SiteError
from scn_fx.ops.checks import shape_text
from scn_fx.ops.dispatch import define

__all__ = ["input_sites"]


@define("input_sites", "(Tensor features, *, int[] spatial_shape=[]) -> Tensor")
def input_sites(features: torch.Tensor, *, spatial_shape: Sequence[int] = ()) -> torch.Tensor:
    """Distinct sites, int32 [N, 4] (batch, z, y, x), for the N rows of `features`.

    libspconv's graphs have one input and take the indices aside. The view of a graph therefore makes its
    indices with this operator, whose ONNX translation emits nothing. The sites fill the grid `spatial_shape`
    (z, y, x) with x fastest; without one they form a row along x.
    """
    count = features.shape[0]
    grid = list(spatial_shape) or [1, 1, max(count, 1)]
    if len(grid) != 3 or count > prod(grid):
        raise SiteError(
            f"Expected at most {prod(grid)} sites on a grid of {grid}, got features {shape_text(features)}."
        )
    row = torch.arange(count, dtype=torch.int64, device=features.device)
    x, rest = row % grid[2], row // grid[2]
    return torch.stack([torch.zeros_like(row), rest // grid[1], rest % grid[1], x], 1).to(torch.int32)


@input_sites.register_fake
def _(features: torch.Tensor, *, spatial_shape: Sequence[int] = ()) -> torch.Tensor:
    return features.new_empty((features.shape[0], 4), dtype=torch.int32)
