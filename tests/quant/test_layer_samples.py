# SPDX-License-Identifier: Apache-2.0
"""What the sums of a layer should be, behind ReLUs and Adds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scn_fx.quant.layer_samples import Outputs, target


@given(st.integers(0, 2**32 - 1), st.booleans())
def test_the_target_bounds_the_error_behind_the_relu_and_meets_it_at_the_present(
    seed: int, adds: bool
) -> None:
    rng = np.random.default_rng(seed)
    exact, present, other, exact_offset, offset = rng.standard_normal((5, 40, 3)).astype(np.float32)
    if not adds:
        exact_offset, offset = np.zeros_like(exact), np.zeros_like(exact)
    offsets = [torch.from_numpy(v) if adds else None for v in (exact_offset, offset)]
    wanted = target(Outputs(torch.from_numpy(exact), *offsets, True), torch.from_numpy(present)).numpy()
    right = np.maximum(exact + exact_offset, 0)

    def error(sums: np.ndarray) -> np.ndarray:
        return (np.maximum(sums + offset, 0) - right) ** 2

    for sums in (present, other):
        assert ((sums - wanted) ** 2 >= error(sums) - 1e-5).all()
    meets = (present + offset > 0) | (exact + exact_offset <= 0)
    np.testing.assert_allclose((present - wanted)[meets] ** 2, error(present)[meets], atol=1e-5)


@pytest.mark.parametrize("adds", [False, True])
def test_without_a_relu_the_target_makes_the_totals_equal(adds: bool) -> None:
    sums, exact_offset, offset = torch.randn(3, 5, 2, generator=torch.Generator().manual_seed(0))
    offsets = (exact_offset, offset) if adds else (None, None)
    wanted = target(Outputs(sums, *offsets, False), torch.zeros(5, 2))
    total = wanted + offset if adds else wanted
    torch.testing.assert_close(total, sums + exact_offset if adds else sums)
