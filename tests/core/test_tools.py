# SPDX-License-Identifier: Apache-2.0
"""What the compiled module has besides engine and operators: bfloat16 as float32, and the machine's peak."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch

from scn_fx import _core
from scn_fx.errors import ArgumentError, SiteError
from tests.core.instruction_sets import SUPPORTED, instruction_set
from tests.oracle.compare import assert_same_bits


def test_every_bfloat16_is_widened_to_the_bit() -> None:
    """Subnormals, infinities and every NaN, whose bits stay."""
    bits = np.arange(2**16, dtype=np.uint32)
    narrow = torch.from_numpy(bits.astype(np.int32).astype(np.int16)).view(torch.bfloat16)
    wide = _core.widen_bfloat16(narrow)
    np.testing.assert_array_equal(wide.view(np.uint32), bits << 16)


@pytest.mark.parametrize("shape", [(), (0,), (7,), (3, 0, 2), (1, 5), (2, 3, 4, 5)])
def test_arrays_of_any_shape_and_order(shape: tuple[int, ...]) -> None:
    values = torch.randn(size=shape, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    for axes in permutations(range(len(shape))):
        turned = values.permute(axes)
        assert_same_bits(np.asarray(_core.widen_bfloat16(turned)), turned.float().contiguous().numpy())
    if shape and shape[-1] > 2:
        part = values[..., ::2]
        assert_same_bits(_core.widen_bfloat16(part), part.float().contiguous().numpy())


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.int16])
def test_other_dtypes_are_refused(dtype: torch.dtype) -> None:
    with pytest.raises(SiteError, match=f"expected bfloat16, got {str(dtype).partition('.')[2]}"):
        _core.widen_bfloat16(torch.zeros(3, dtype=dtype))
    with pytest.raises(TypeError):
        _core.widen_bfloat16([1.0])


@pytest.mark.parametrize("isa", SUPPORTED)
@pytest.mark.parametrize("kind", ["fp32", "int8"])
def test_each_instruction_set_has_a_peak(isa: str, kind: str) -> None:
    with instruction_set(isa):
        for threads in (1, 2):
            assert 1e7 < _core.measure_peak(kind, threads, 0.01) < 1e15


def test_what_a_peak_can_be_of() -> None:
    with pytest.raises(ArgumentError, match="kind must be 'fp32' or 'int8', got 'fp16'"):
        _core.measure_peak("fp16", 1, 0.1)
    for seconds in (0.0, -1.0, 601.0, float("nan"), float("inf")):
        with pytest.raises(ArgumentError, match="seconds must be positive and at most 600"):
            _core.measure_peak("int8", 1, seconds)
    for threads in (0, -1, 1025, 2**70):
        with pytest.raises(ArgumentError, match="threads must be 1 to 1024"):
            _core.measure_peak("int8", threads, 0.1)
