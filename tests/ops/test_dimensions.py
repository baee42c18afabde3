# SPDX-License-Identifier: Apache-2.0
"""Operators on indices of two columns and of three: what they give on four, without the columns between."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import spconv.pytorch as spconv
import torch
from hypothesis import given
from hypothesis import strategies as st

import scn_fx.ops  # noqa: F401 - registers the operators
from scn_fx.capture.eager import run_with_own_operators
from scn_fx.errors import SiteError
from tests.oracle import strategies
from tests.oracle.frames import random_sites

OPS = torch.ops.scn_fx
FLAT = st.tuples(st.integers(1, 2), strategies.seeds, st.booleans())


def drawn(ndim: int, seed: int) -> tuple[Any, torch.Tensor, torch.Tensor, list[int], dict[str, list[int]]]:
    """Random sites with all four columns and with those of `ndim`, a grid, and numbers of a kernel."""
    rng = np.random.default_rng(seed)
    lead = [1] * (3 - ndim)
    grid = lead + rng.integers(3, 15, ndim).tolist()
    sites = torch.from_numpy(random_sites(rng, int(rng.integers(0, 60)), grid, 2))
    kernel = lead + rng.integers(1, 4, ndim).tolist()
    numbers = {
        "kernel_size": kernel,
        "stride": lead + rng.integers(1, 3, ndim).tolist(),
        "padding": [k // 2 for k in kernel],
        "dilation": [1, 1, 1],
    }
    return rng, sites, sites[:, [0, *range(4 - ndim, 4)]].contiguous(), grid, numbers


@given(FLAT)
def test_maps_are_those_of_sites_with_all_columns(case: tuple[int, int, bool]) -> None:
    ndim, seed, transposed = case
    _, sites, flat, grid, n = drawn(ndim, seed)
    same = {"name": "a", "batch_size": 2, "spatial_shape": grid, "kernel_size": n["kernel_size"]}
    assert torch.equal(
        OPS.subm_map(flat, **same, dilation=[1, 1, 1]), OPS.subm_map(sites, **same, dilation=[1, 1, 1])
    )
    out = [
        (g - 1) * s - 2 * p + k if transposed else (g + 2 * p - k) // s + 1
        for g, s, p, k in zip(grid, n["stride"], n["padding"], n["kernel_size"], strict=True)
    ]
    strided = {"name": "a", "batch_size": 2, "input_spatial_shape": grid, "output_spatial_shape": out, **n}
    made, kernel_map = OPS.conv_map(sites, **strided, transposed=transposed)
    found, found_map = OPS.conv_map(flat, **strided, transposed=transposed)
    assert found.shape == (len(made), ndim + 1)
    assert torch.equal(found, made[:, [0, *range(4 - ndim, 4)]])
    assert torch.equal(found_map, kernel_map)
    back = OPS.inverse_map(found_map, flat, name="a")
    assert torch.equal(back, OPS.inverse_map(kernel_map, sites, name="a"))


@given(FLAT)
def test_dense_maps_and_their_gradients(case: tuple[int, int, bool]) -> None:
    ndim, seed, _ = case
    rng, sites, flat, grid, _ = drawn(ndim, seed)
    features = torch.from_numpy(rng.normal(size=(len(sites), 3))).float().requires_grad_()
    options = {"name": "a", "format": "zyx", "batch_size": 2, "spatial_shape": grid}
    dense = OPS.scatter_dense(features, flat, **options)
    assert torch.equal(dense, OPS.scatter_dense(features, sites, **options))
    weights = torch.arange(dense.numel()).reshape(dense.shape).float()
    (found,) = torch.autograd.grad((dense * weights).sum(), features)
    batch, z, y, x = sites.long().unbind(1)
    assert torch.equal(found, weights[batch, :, z, y, x])


@pytest.mark.parametrize("columns", [2, 3])
def test_axes_without_a_column_have_one_cell(columns: int) -> None:
    rows = torch.zeros(1, columns, dtype=torch.int32)
    grid, ones = [2, 2, 4], [1, 1, 1]
    message = rf"'a': indices must be int32 \[N, 4\].*on a grid of \[2, 2, 4\], got \[1, {columns}\] int32"
    with pytest.raises(SiteError, match=message):
        OPS.subm_map(rows, name="a", batch_size=1, spatial_shape=grid, kernel_size=ones, dilation=ones)
    with pytest.raises(SiteError, match=message):
        OPS.scatter_dense(
            torch.zeros(1, 3), rows, name="a", format="zyx", batch_size=1, spatial_shape=grid
        )  # fmt: skip


def test_training_on_pillars_has_the_gradients_of_a_dense_convolution() -> None:
    torch.manual_seed(0)
    grid = (6, 7)
    conv = spconv.SparseConv2d(3, 5, (3, 2), (2, 1), padding=(1, 0), bias=True)
    cells = torch.cartesian_prod(torch.arange(2), torch.arange(grid[0]), torch.arange(grid[1])).int()
    image = torch.randn(2, 3, *grid, requires_grad=True)
    batch, y, x = cells.long().unbind(1)
    tensor = spconv.SparseConvTensor(image[batch, :, y, x], cells, list(grid), 2)
    made = run_with_own_operators(torch.nn.Sequential(conv, spconv.ToDense()), tensor)
    wanted = torch.nn.functional.conv2d(image, conv.weight.permute(0, 3, 1, 2), conv.bias, (2, 1), (1, 0))
    assert torch.allclose(made, wanted, atol=1e-5)
    weights = torch.randn_like(made)
    inputs = [image, conv.weight, conv.bias]
    for found, expected in zip(
        torch.autograd.grad((made * weights).sum(), inputs),
        torch.autograd.grad((wanted * weights).sum(), inputs),
        strict=True,
    ):
        assert torch.allclose(found, expected, atol=1e-4)
