# SPDX-License-Identifier: Apache-2.0
"""What is known of kernel maps: that they need no check before a GPU reads by them, and their inverses.

To look at a map's entries is to wait for the GPU. Maps that the operators made are right as long as nobody
writes to them: such a map carries the number of rows that it reads, and torch's count of writes at that time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

__all__ = ["inverse_of", "is_known", "note_rows", "remember", "rows_read"]

_NAME = "_scn_fx_reads"
_INVERSE = "_scn_fx_inverse"
_ROWS = "_scn_fx_rows"


def note_rows(kernel_map: torch.Tensor, rows: int) -> torch.Tensor:
    """`kernel_map`, which was made for features of `rows` rows; its entries may be written all the same."""
    setattr(kernel_map, _ROWS, rows)
    return kernel_map


def rows_read(kernel_map: torch.Tensor) -> int | None:
    """What `note_rows` was told; None of a map from elsewhere, or a copy."""
    rows: int | None = getattr(kernel_map, _ROWS, None)
    return rows


def remember(kernel_map: torch.Tensor, rows: int | tuple[int, ...]) -> torch.Tensor:
    """`kernel_map`, whose entries are -1 or below `rows` (of each column), and distinct along each column."""
    if not kernel_map.is_inference():  # of which torch counts no writes
        setattr(kernel_map, _NAME, (rows, kernel_map._version))
    return kernel_map


def is_known(kernel_map: torch.Tensor, rows: int | tuple[int, ...]) -> bool:
    """Whether `remember` was told so, and nothing was written since."""
    return not kernel_map.is_inference() and getattr(kernel_map, _NAME, None) == (rows, kernel_map._version)


def inverse_of(kernel_map: torch.Tensor, rows: int, make: Callable[[], torch.Tensor]) -> torch.Tensor:
    """The inverse map for `rows` input rows, from `make` unless it was made before: layers share maps.

    Another is made once either map was written to, and on another stream, which might come before the first.
    """
    traced = type(kernel_map) is not torch.Tensor or torch._C._len_torch_dispatch_stack() > 0
    if traced or kernel_map.is_inference():  # of which torch counts no writes
        return make()
    stream = torch.cuda.current_stream(kernel_map.device).cuda_stream if kernel_map.is_cuda else 0
    key: tuple[Any, ...] = (rows, kernel_map._version, stream)
    known = getattr(kernel_map, _INVERSE, None)
    if known is not None and known[0] == key and known[1]._version == known[2]:
        return known[1]
    made = make()
    setattr(kernel_map, _INVERSE, (key, made, made._version))
    return made
