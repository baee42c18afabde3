# SPDX-License-Identifier: Apache-2.0
"""Networks of one, two and three dimensions: what is 1D or 2D is said by the width of indices alone.

Grids, kernels and sites have three axes everywhere inside: the leading ones, which a network of fewer
dimensions lacks, have one cell. Indices have as many columns as the network has dimensions, and the batch.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["DIMENSIONS", "in_zyx", "index_columns", "index_text", "lifted", "narrowed", "width_advice"]

DIMENSIONS = (1, 2, 3)
"""Those that a network can have."""


def lifted(values: Sequence[int], fill: int) -> list[int]:
    """`values`, one per axis of a network, with `fill` for each leading axis that it lacks of three."""
    return [fill] * (3 - len(values)) + [int(value) for value in values]


def narrowed(values: Sequence[int], ndim: int) -> list[int]:
    """Of `values`, one for each of three axes, those of the axes that a network of `ndim` dimensions has."""
    return [int(value) for value in values[3 - ndim :]]


def in_zyx(shape: Sequence[int], axes: str, ndim: int) -> tuple[int, int, int]:
    """A grid of three axes, of which the last `ndim` are in the order of index columns, as (z, y, x)."""
    own = narrowed(shape, ndim)
    z, y, x = lifted(own[::-1] if axes == "xyz" else own, 1)
    return z, y, x


def index_columns(ndim: int, axes: str = "zyx") -> tuple[str, ...]:
    """Names of the columns of indices: batch, and the axes in their order."""
    names = {"zyx": ("z", "y", "x")[3 - ndim :], "xyz": ("x", "y", "z")[:ndim]}
    return ("batch", *names[axes])


def index_text(ndim: int, axes: str = "zyx") -> str:
    """Shape and columns of indices in words: "[N, 3] (batch, y, x)"."""
    return f"[N, {ndim + 1}] ({', '.join(index_columns(ndim, axes))})"


def width_advice(ndim: int, axes: str, columns: int) -> str:
    """What to do about indices of `columns` columns where a network of `ndim` dimensions takes them."""
    if columns - 1 not in DIMENSIONS or columns == ndim + 1:
        return ""
    if columns < ndim + 1:
        return (
            f" Those are indices of a network of {columns - 1} dimension(s). One of {ndim}, a file that does "
            f"not record scn_fx.ndim among them, takes {index_text(ndim, axes)}."
        )
    names, kept = index_columns(columns - 1, axes), index_columns(ndim, axes)
    chosen = ", ".join(str(names.index(name)) for name in kept)
    what = "pillars" if ndim == 2 else "cells"
    return f" For {what} of one cell along the other axes, leave those out: indices[:, [{chosen}]]."
