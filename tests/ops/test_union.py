# SPDX-License-Identifier: Apache-2.0
"""Unions of sites and the sums on them, against dictionaries of sites and torch's own gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import scn_fx.ops  # noqa: F401  (registers the operators)
from scn_fx.errors import ArgumentError, BoundError, ScnError, SiteError
from tests.ops.samples import BATCH, GRID, at_sites, random_sites, random_tensor, to_dense

OPS = torch.ops.scn_fx
MAP = {"name": "u", "batch_size": BATCH, "spatial_shape": list(GRID)}


def rows_of(parts: list[torch.Tensor]) -> dict[tuple[int, ...], list[int]]:
    """The row of each site in each part, -1 where it has none."""
    found: dict[tuple[int, ...], list[int]] = {}
    for number, part in enumerate(parts):
        for row, site in enumerate(part.tolist()):
            found.setdefault(tuple(site), [-1] * len(parts))[number] = row
    return found


@pytest.mark.parametrize(
    "counts", [(40,), (40, 40), (1, 100, 7), (0, 5), (0, 0), (3, 2, 9, 1, 30, 8, 60, 12)]
)
def test_sites_ascend_and_rows_are_those_of_the_parts(counts: tuple[int, ...]) -> None:
    parts = [random_sites(count, seed) for seed, count in enumerate(counts)]
    sites, rows = OPS.union_map(parts, **MAP)
    expected = rows_of(parts)
    assert sites.dtype == rows.dtype == torch.int32 and rows.shape == (len(expected), len(parts))
    assert list(map(tuple, sites.tolist())) == sorted(expected)
    assert [expected[tuple(site)] for site in sites.tolist()] == rows.tolist()


@pytest.mark.parametrize("columns", [2, 3])
def test_sites_of_fewer_dimensions(columns: int) -> None:
    grid = [1] * (4 - columns) + [6, 7][: columns - 1]
    kept = [0, *range(5 - columns, 4)]
    parts = [random_sites(30, seed, (1, 6, 7) if columns == 3 else (1, 1, 6))[:6, kept] for seed in (0, 1)]
    sites, rows = OPS.union_map(parts, name="u", batch_size=BATCH, spatial_shape=grid)
    expected = rows_of(parts)
    assert list(map(tuple, sites.tolist())) == sorted(expected)
    assert [expected[tuple(site)] for site in sites.tolist()] == rows.tolist()


def test_sums_are_those_of_dense_maps_and_so_are_their_gradients() -> None:
    parts = [random_sites(count, seed) for seed, count in enumerate((40, 25, 60))]
    values = [random_tensor(len(part), 6, seed=7 + i).requires_grad_() for i, part in enumerate(parts)]
    sites, rows = OPS.union_map(parts, **MAP)
    made = OPS.union(values, rows, name="u")
    dense = sum(to_dense(x, part) for x, part in zip(values, parts, strict=True))
    expected = at_sites(dense, sites)
    torch.testing.assert_close(made, expected, rtol=1e-6, atol=1e-6)
    direction = random_tensor(*made.shape, seed=3)
    found, wanted = (torch.autograd.grad((each * direction).sum(), values) for each in (made, expected))
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b)


def test_sums_are_made_in_the_order_of_the_parts_from_plus_zero() -> None:
    site = torch.zeros((1, 4), dtype=torch.int32)
    values = [torch.tensor([[x]]) for x in (1e8, 1.0, -1e8)]
    _, rows = OPS.union_map([site] * 3, **MAP)
    assert float(OPS.union(values, rows, name="u")) == np.float32(np.float32(1e8 + 1.0) - 1e8)
    zero = OPS.union([torch.tensor([[-0.0]])], rows[:, :1].contiguous(), name="u")
    assert not bool(torch.signbit(zero))
    halves = [value.half() / 4096 for value in (torch.tensor([[4096.0]]), torch.tensor([[2.0]]))]
    made = OPS.union(halves, rows[:, :2].contiguous(), name="u")
    assert made.dtype == torch.float16 and made.item() == np.float16(1 + 2 / 4096)
    assert (
        OPS.union([halves[0], halves[1].float()], rows[:, :2].contiguous(), name="u").dtype == torch.float32
    )


A, B = random_sites(10, 0), random_sites(12, 1)
X, Y = random_tensor(10, 3), random_tensor(12, 3, seed=1)
ROWS = OPS.union_map([A, B], **MAP)[1]
REFUSED: dict[str, tuple[Any, type[ScnError], str]] = {
    "too many": (lambda: OPS.union_map([A] * 9, **MAP), ArgumentError, "got 9. Add in several steps"),
    "columns": (lambda: OPS.union_map([A, B[:, 1:]], **MAP), SiteError, "must have as many columns"),
    "dtype": (lambda: OPS.union_map([A, B.long()], **MAP), SiteError, "indices 1 must be int32"),
    "outside": (
        lambda: OPS.union_map([A, B + 9], **MAP),
        SiteError,
        r"row 0 is outside of 2 grid\(s\) of \[4, 6, 5\]",
    ),
    "negative": (lambda: OPS.union_map([A, B - 9], **MAP), SiteError, "row 0 is outside"),
    "twice": (
        lambda: OPS.union_map([A, torch.cat([B, B[:2]])], **MAP),
        SiteError,
        r"indices 1 hold 2 site\(s\) twice",
    ),
    "bound": (
        lambda: OPS.union_map([A, B], **MAP, output_bound=5),
        BoundError,
        f"'u' has {len(ROWS)} output sites, more than its output_bound of 5",
    ),
    "batch": (lambda: OPS.union_map([A], **{**MAP, "batch_size": 0}), ArgumentError, "batch_size must be 1"),
    "parts of the map": (lambda: OPS.union([X], ROWS, name="u"), SiteError, r"must be int32 \[M, 1\]"),
    "widths": (lambda: OPS.union([X, Y[:, :2]], ROWS, name="u"), SiteError, "must have the same channels"),
    "integers": (lambda: OPS.union([X, Y.int()], ROWS, name="u"), SiteError, "input 1 must be float16"),
    "rows": (lambda: OPS.union([X, Y[:5]], ROWS, name="u"), SiteError, "of input 1, which has 5 rows"),
    "entries": (lambda: OPS.union([X, Y], ROWS - 1, name="u"), SiteError, "reads row -2 of input 0"),
}


@pytest.mark.parametrize("case", list(REFUSED))
def test_refusals(case: str) -> None:
    call, kind, text = REFUSED[case]
    with pytest.raises(kind, match=text):
        call()
