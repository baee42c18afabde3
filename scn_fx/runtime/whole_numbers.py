# SPDX-License-Identifier: Apache-2.0
"""Counts and sizes that callers give: whole numbers of any library, and nothing else."""

from __future__ import annotations

import operator
from typing import Any

from scn_fx.errors import ArgumentError

__all__ = ["INT32_MAX", "grid_shape", "whole_number"]

INT32_MAX = 2**31 - 1


def whole_number(name: str, value: Any, most: int = INT32_MAX) -> int:
    """`value` as an int from 1 to `most`: an int, or a scalar of numpy or torch that holds an integer.

    Raises:
        ArgumentError: it is something else (a bool, a float, text), or out of range.
    """
    kind = type(value).__name__
    if kind in ("bool", "bool_") or "bool" in str(getattr(value, "dtype", "")):
        found = None
    else:
        try:
            found = operator.index(value)
        except Exception:  # TypeError, and what arrays of several libraries raise instead
            found = None
    if found is None:
        raise ArgumentError(
            f"{name} must be a whole number from 1 to {most}, got {value!r} ({kind}). Pass an int."
        )
    if not 1 <= found <= most:
        raise ArgumentError(f"{name} must be at least 1 and at most {most}, got {found}.")
    return found


def grid_shape(name: str, value: Any) -> list[int]:
    """`value` as three extents (z, y, x).

    Raises:
        ArgumentError: it is no sequence of three positive whole numbers.
    """
    try:
        entries = [] if isinstance(value, str | bytes) else list(value)
    except TypeError:
        entries = []
    if len(entries) != 3:
        raise ArgumentError(
            f"{name} must be three whole numbers, the cells of the grid along (z, y, x), got {value!r}."
        )
    return [whole_number(f"{name}[{axis}]", entry) for axis, entry in enumerate(entries)]
