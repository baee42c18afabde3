# SPDX-License-Identifier: Apache-2.0
"""Kernel maps that need no check before a GPU reads by them.

To look at a map's entries is to wait for the GPU. Maps that the operators made are right as long as nobody
writes to them: such a map carries the number of rows that it reads, and torch's count of writes at that time.
"""

from __future__ import annotations

import torch

__all__ = ["is_known", "remember"]

_NAME = "_scn_fx_reads"


def remember(kernel_map: torch.Tensor, rows: int) -> torch.Tensor:
    """`kernel_map`, whose entries are -1 or below `rows`, and distinct along each column."""
    if not kernel_map.is_inference():  # of which torch counts no writes
        setattr(kernel_map, _NAME, (rows, kernel_map._version))
    return kernel_map


def is_known(kernel_map: torch.Tensor, rows: int) -> bool:
    """Whether `remember` was told so, and nothing was written since."""
    return not kernel_map.is_inference() and getattr(kernel_map, _NAME, None) == (rows, kernel_map._version)
