# SPDX-License-Identifier: Apache-2.0
"""What is remembered of a kernel map holds until somebody writes to it."""

from __future__ import annotations

import torch

from scn_fx.ops.known_maps import inverse_of, is_known, remember


def test_a_map_is_known_until_it_is_written_to() -> None:
    kernel_map = torch.full((4, 3), -1, dtype=torch.int32)
    assert not is_known(kernel_map, 4)
    assert remember(kernel_map, 4) is kernel_map
    assert is_known(kernel_map, 4)
    assert not is_known(kernel_map, 3)
    assert not is_known(kernel_map.clone(), 4)
    kernel_map[0, 0] = 9
    assert not is_known(kernel_map, 4)


def test_a_map_whose_writes_are_not_counted_is_never_known() -> None:
    with torch.inference_mode():
        kernel_map = remember(torch.zeros(4, 3, dtype=torch.int32), 4)
    assert not is_known(kernel_map, 4)
    assert inverse_of(kernel_map, 4, kernel_map.clone) is not inverse_of(kernel_map, 4, kernel_map.clone)


def test_an_inverse_is_made_once_until_either_map_is_written_to() -> None:
    kernel_map = torch.zeros(4, 3, dtype=torch.int32)

    def inverse(rows: int = 4) -> torch.Tensor:
        return inverse_of(kernel_map, rows, kernel_map.clone)

    first = inverse()
    assert inverse() is first
    assert inverse(5) is not first
    first = inverse()
    kernel_map[0, 0] = 1
    second = inverse()
    assert second is not first
    second[0, 0] = 2
    assert inverse() is not second
