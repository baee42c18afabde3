# SPDX-License-Identifier: Apache-2.0
"""Indices of fewer than three dimensions, as kernels read and write them: with all three axes."""

from __future__ import annotations

import torch

__all__ = ["lifted_sites", "narrowed_sites"]


def lifted_sites(indices: torch.Tensor) -> torch.Tensor:
    """`indices` int32 [N, 2..4] as [N, 4] (batch, z, y, x), with 0 along the axes that they lack."""
    lacking = 4 - indices.shape[1]
    if not lacking:
        return indices
    zeros = indices.new_zeros((indices.shape[0], lacking))
    return torch.cat([indices[:, :1], zeros, indices[:, 1:]], 1)


def narrowed_sites(sites: torch.Tensor, columns: int) -> torch.Tensor:
    """`sites` int32 [N, 4] with `columns` columns, without the leading axes that those do not hold."""
    if sites.shape[1] == columns:
        return sites
    return torch.cat([sites[:, :1], sites[:, 5 - columns :]], 1)
