# SPDX-License-Identifier: Apache-2.0
"""The gradient by the weight against numpy in float64, on every instruction set that this processor has."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from scn_fx import _core
from scn_fx.errors import SiteError
from tests.core.instruction_sets import SUPPORTED, instruction_set

# Rows of one and of several parts; channels that fill their vectors and that do not.
CASES = [
    (0, 0, 3, 5, 7),
    (1, 1, 1, 1, 1),
    (150, 90, 27, 16, 32),
    (70, 200, 8, 5, 13),
    (33_000, 500, 2, 3, 17),
]


def operands(case: tuple[int, ...]) -> tuple[Any, Any, Any]:
    outputs, inputs, offsets, c_in, c_out = case
    rng = np.random.default_rng(sum(case))
    grad = rng.normal(size=(outputs, c_out)).astype(np.float32)
    x = rng.normal(size=(inputs, c_in)).astype(np.float32)
    return grad, x, rng.integers(-1, max(inputs, 1), (outputs, offsets)).astype(np.int32)


def expected(grad: Any, x: Any, kernel_map: Any) -> Any:
    padded = np.concatenate([x, np.zeros((1, x.shape[1]))]).astype(np.float64)
    return np.einsum("mo,mkc->okc", grad.astype(np.float64), padded[kernel_map])


@pytest.mark.parametrize("isa", SUPPORTED)
@pytest.mark.parametrize("case", CASES)
def test_against_float64(case: tuple[int, ...], isa: str) -> None:
    grad, x, kernel_map = operands(case)
    with instruction_set(isa):
        found = _core.weight_gradient(grad, x, kernel_map)
        for threads in (1, 3):
            assert np.array_equal(_core.weight_gradient(grad, x, kernel_map, threads=threads), found)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected(grad, x, kernel_map), rtol=1e-4, atol=1e-3)


def test_what_does_not_fit() -> None:
    grad, x, kernel_map = operands(CASES[2])
    kernel_map[3, 4] = 90
    with pytest.raises(SiteError, match="conv: the kernel map reads input row 90, but there are 90"):
        _core.weight_gradient(grad, x, kernel_map, name="conv")
    with pytest.raises(SiteError, match="the kernel map has 149 rows, but the gradient has 150"):
        _core.weight_gradient(grad, x, kernel_map[:149])
    with pytest.raises(SiteError, match="features must be float16 or float32"):
        _core.weight_gradient(grad, x.astype(np.float64), kernel_map)
