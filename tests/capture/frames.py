# SPDX-License-Identifier: Apache-2.0
"""Small frames, and comparison of captured graphs with spconv itself."""

from __future__ import annotations

from typing import Any

import torch

GRID = (9, 12, 13)


def frame(
    channels: int = 4, grid: tuple[int, int, int] = GRID, sites: int = 150, batch: int = 1, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Features float32 [N, channels] and distinct indices int32 [N, 4], in no particular order."""
    return flat_frame(channels, grid, sites, batch, seed)


def flat_frame(
    channels: int, grid: tuple[int, ...], sites: int, batch: int = 1, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same in a grid of any number of axes: indices int32 [N, axes + 1]."""
    generator = torch.Generator().manual_seed(seed)
    columns = [torch.randint(0, size, (sites,), generator=generator) for size in (batch, *grid)]
    indices = torch.unique(torch.stack(columns, 1).int(), dim=0)
    indices = indices[torch.randperm(len(indices), generator=generator)]
    return torch.randn(len(indices), channels, generator=generator), indices


def sparse(features: torch.Tensor, indices: torch.Tensor, grid: tuple[int, int, int] = GRID) -> Any:
    """An spconv tensor of a frame."""
    import spconv.pytorch as spconv

    return spconv.SparseConvTensor(features, indices, list(grid), int(indices[:, 0].max()) + 1)


def ordered(features: torch.Tensor, indices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows in ascending order of (batch, z, y, x)."""
    keys = indices.long()
    key = ((keys[:, 0] * 4096 + keys[:, 1]) * 4096 + keys[:, 2]) * 4096 + keys[:, 3]
    order = key.argsort()
    return features[order], indices[order]


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest difference, relative to the largest expected value."""
    assert found.shape == expected.shape
    assert bool(expected.abs().max() > 0)
    return float((found - expected).abs().max() / expected.abs().max())


def assert_same_as_spconv(graph: Any, model: Any, features: torch.Tensor, indices: torch.Tensor) -> None:
    """The captured graph of a model from sparse tensor to sparse tensor computes what spconv computes."""
    with torch.no_grad():
        expected = model(sparse(features, indices))
    found, sites = ordered(*graph(features, indices))
    wanted, wanted_sites = ordered(expected.features, expected.indices)
    assert torch.equal(sites, wanted_sites)
    assert relative(found, wanted) <= 1e-5


def randomise(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Random parameters and running statistics, so that a wrong fold cannot go unnoticed; evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm1d):
                if module.affine:
                    module.weight.uniform_(0.5, 1.5, generator=generator)
                    module.bias.normal_(0.0, 0.3, generator=generator)
                module.running_mean.normal_(0.0, 0.3, generator=generator)
                module.running_var.uniform_(0.3, 2.0, generator=generator)
    return model.eval()
