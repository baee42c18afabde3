# SPDX-License-Identifier: Apache-2.0
"""Global pooling of the torch graph: torch's own operators, spconv's module, the oracle's bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import spconv.pytorch as spconv
import torch

import scn_fx.ops  # noqa: F401  (registers the operators)
from scn_fx.errors import ArgumentError, OverflowedError, SiteError
from tests.ops.samples import random_tensor
from tests.oracle import numerics
from tests.oracle.compare import assert_same_bits
from tests.oracle.global_pools import CASES, KINDS, pool_frame

OPS = torch.ops.scn_fx


def _pool(x: torch.Tensor, sites: torch.Tensor, kind: str, batch_size: int) -> torch.Tensor:
    made: torch.Tensor = OPS.global_pool(x, sites, name="pool", kind=kind, batch_size=batch_size)
    return made


def _of_torch(x: torch.Tensor, sites: torch.Tensor, kind: str, batch_size: int) -> torch.Tensor:
    rows = [x[sites[:, 0] == entry] for entry in range(batch_size)]
    if kind == "max":
        return torch.stack([found.amax(0) for found in rows])
    return torch.stack([found.sum(0) if kind == "sum" else found.mean(0) for found in rows])


@pytest.mark.parametrize("kind", KINDS)
def test_values_and_gradients_are_those_of_torch(kind: str) -> None:
    sites = torch.from_numpy(pool_frame((300, 20, 513))[1])
    x = random_tensor(len(sites), 5).requires_grad_()
    made, expected = _pool(x, sites, kind, 3), _of_torch(x, sites, kind, 3)
    torch.testing.assert_close(made, expected, rtol=1e-5, atol=1e-5)
    direction = random_tensor(3, 5, seed=9)
    found, wanted = (torch.autograd.grad((y * direction).sum(), x)[0] for y in (made, expected))
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", CASES)
def test_it_has_the_bits_of_the_oracle(case: str, kind: str, half: bool) -> None:
    counts = CASES[case]
    features, sites = pool_frame(counts, wide=not half)
    x = torch.from_numpy(features) * (1 if half else torch.tensor([2.0**20, 2.0**-20]))
    expected = numerics.global_pool(x.float().numpy(), sites, len(counts), kind)
    made = _pool(x, torch.from_numpy(sites), kind, len(counts))
    assert made.dtype == x.dtype
    assert_same_bits(made.numpy(), expected.astype(np.float16) if half else expected)


@pytest.mark.parametrize("mean", [False, True])
def test_spconvs_modules(mean: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their kernel, which lists the rows of each batch entry, is not there without a GPU."""

    def rearranged(indices: torch.Tensor, batch_size: int) -> tuple[torch.Tensor, torch.Tensor]:
        rows = [torch.nonzero(indices[:, 0] == entry)[:, 0] for entry in range(batch_size)]
        padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        return padded, torch.tensor([len(found) for found in rows])

    monkeypatch.setattr(spconv.ops, "global_pool_rearrange", rearranged)
    sites = torch.from_numpy(pool_frame((300, 20))[1])
    x = random_tensor(len(sites), 5)
    module = spconv.SparseGlobalAvgPool() if mean else spconv.SparseGlobalMaxPool()
    theirs = module(spconv.SparseConvTensor(x, sites, [8, 12, 12], 2))
    ours = _pool(x, sites, "mean" if mean else "max", 2)
    # of a mean it hands on the first channel alone
    torch.testing.assert_close(ours[:, 0] if mean else ours, theirs, rtol=1e-6, atol=1e-6)


def test_all_that_are_the_maximum_share_in_its_gradient() -> None:
    sites = torch.tensor([[0, 0, 0, n] for n in range(3)], dtype=torch.int32)
    x = torch.tensor([[2.0], [1.0], [2.0]], requires_grad=True)
    _pool(x, sites, "max", 1).sum().backward()
    assert x.grad is not None and x.grad.flatten().tolist() == [1.0, 0.0, 1.0]


def test_nan_zeros_and_their_signs() -> None:
    sites = torch.tensor([[1, 0, 0, 1], [1, 0, 0, 0], [2, 0, 0, 0], [2, 0, 0, 1]], dtype=torch.int32)
    x = torch.tensor([[0.0], [-0.0], [float("nan")], [3.0]])
    for kind in KINDS:
        made = _pool(x, sites, kind, 3)
        assert made[0].tolist() == [0.0] and made[2].isnan().all()
        # the first of two equal ones by their sites; a sum begins at a positive zero
        assert bool(made[1].signbit()) == (kind == "max")
    assert not _pool(-torch.zeros(1, 1), sites[:1], "sum", 2)[1].signbit()


@pytest.mark.parametrize("columns", [2, 3])
def test_fewer_dimensions(columns: int) -> None:
    sites = torch.from_numpy(pool_frame((70, 30))[1])[:, :columns].contiguous()
    x = random_tensor(100, 4)
    torch.testing.assert_close(_pool(x, sites, "mean", 2), _of_torch(x, sites, "mean", 2))


def test_a_sum_beyond_float16() -> None:
    sites = torch.from_numpy(pool_frame((600,))[1])
    with pytest.raises(OverflowedError, match=r"'pool': its result must fit in float16"):
        _pool(torch.full((600, 2), 200.0).half(), sites, "sum", 1)


SITES = torch.tensor([[0, 1, 2, 3], [1, 1, 2, 3]], dtype=torch.int32)
WRONG: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "kind": ({"kind": "median"}, ArgumentError, "kind must be one of max, mean, sum, got 'median'"),
    "batch size": ({"batch_size": 0}, ArgumentError, "batch_size must be 1 to"),
    "small batch": ({"batch_size": 1}, SiteError, r"batch indices must be 0 to 0 .*got 1"),
    "rows": ({"features": torch.ones(3, 2)}, SiteError, "one feature row per site"),
    "integers": ({"features": torch.ones(2, 2, dtype=torch.int32)}, SiteError, "features must be"),
    "int64": ({"indices": SITES.long()}, SiteError, r"indices\.int\(\)"),
    "negative": ({"indices": SITES - 1}, SiteError, r"batch indices must be 0 to 1 .*got -1"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_it_refuses(case: str) -> None:
    change, error, message = WRONG[case]
    given = {"features": torch.ones(2, 2), "indices": SITES, "kind": "max", "batch_size": 2, **change}
    with pytest.raises(error, match=message):
        OPS.global_pool(given.pop("features"), given.pop("indices"), name="pool", **given)
