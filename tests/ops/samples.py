# SPDX-License-Identifier: Apache-2.0
"""Random sites and operator arguments, and dense convolutions to compare with."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

GRID = (4, 6, 5)
BATCH = 2


def random_sites(count: int = 40, seed: int = 0, grid: tuple[int, int, int] = GRID) -> Tensor:
    """`count` distinct sites, int32 [count, 4], in random order."""
    generator = torch.Generator().manual_seed(seed)
    z, y, x = grid
    cell = torch.randperm(BATCH * z * y * x, generator=generator)[:count]
    columns = [cell // (z * y * x), cell // (y * x) % z, cell // x % y, cell % x]
    return torch.stack(columns, 1).int()


def random_tensor(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def subm_arguments(kernel: int = 3, dilation: int = 1, output_bound: int = 1000) -> dict[str, Any]:
    return {
        "name": "conv",
        "batch_size": BATCH,
        "spatial_shape": list(GRID),
        "kernel_size": [kernel] * 3,
        "dilation": [dilation] * 3,
        "output_bound": output_bound,
    }


def strided_arguments(kernel: int = 3, stride: int = 2, padding: int = 1) -> dict[str, Any]:
    out = [(n + 2 * padding - kernel) // stride + 1 for n in GRID]
    return {
        "name": "down",
        "batch_size": BATCH,
        "input_spatial_shape": list(GRID),
        "output_spatial_shape": out,
        "kernel_size": [kernel] * 3,
        "stride": [stride] * 3,
        "padding": [padding] * 3,
        "dilation": [1] * 3,
        "transposed": False,
        "output_bound": 1000,
    }


def conv_arguments(**changes: Any) -> dict[str, Any]:
    """Keyword arguments of a convolution without activation."""
    return {"name": "conv", "activation": "None", **changes}


def to_dense(features: Tensor, indices: Tensor, grid: tuple[int, ...] | list[int] = GRID) -> Tensor:
    """[BATCH, C, *grid] with zeros where no site is; differentiable."""
    batch, z, y, x = indices.long().unbind(1)
    dense = features.new_zeros((BATCH, *grid, features.shape[1]))
    return dense.index_put((batch, z, y, x), features).permute(0, 4, 1, 2, 3)


def at_sites(dense: Tensor, indices: Tensor) -> Tensor:
    batch, z, y, x = indices.long().unbind(1)
    return dense.permute(0, 2, 3, 4, 1)[batch, z, y, x]


def torch_weight(weight: Tensor) -> Tensor:
    """[out, kz, ky, kx, in] to torch's [out, in, kz, ky, kx]."""
    return weight.permute(0, 4, 1, 2, 3)
