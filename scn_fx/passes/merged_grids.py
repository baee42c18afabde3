# SPDX-License-Identifier: Apache-2.0
"""Which kernel map brings the sites of a tensor to the cells that a forward computes from their indices."""

from __future__ import annotations

from collections.abc import Sequence

from scn_fx.errors import SiteError
from scn_fx.geometry import ConvGeometry, Triple
from scn_fx.passes.index_columns import Part, Term

__all__ = ["part_geometry"]

_NAMES = "zyx"


def part_geometry(part: Part, grid: Sequence[int], wanted: Triple | None) -> ConvGeometry | str:
    """The geometry of the map from a part's sites to its cells, or why there is none, to follow "as ".

    Args:
        part: what the forward computes from the indices, a column for the batch first.
        grid: that of the sites, (z, y, x).
        wanted: the grid on which layers expect the cells; None to choose it.

    An axis that the cells keep is multiplied (a transposed convolution of one offset), divided (a strided
    one, its kernel as long as its stride) or neither; over one that they lack, everything is collected.
    """
    axes = _axes(part)
    if isinstance(axes, str):
        return axes
    scales = [1 if term is None else term.weight for term in axes]
    divisors = [1 if term is None else term.divisor for term in axes]
    transposed = max(scales) > 1
    if transposed and max(divisors) > 1:
        return "it multiplies some coordinates and divides others"
    kernel, stride, padding, extra, out = [], [], [], [], []
    for axis, (term, size) in enumerate(zip(axes, grid, strict=True)):
        if term is None:  # of a transposed map, offset size - 1 - z leads from z to 0
            kernel.append(size)
            stride.append(1 if transposed else size)
            padding.append(size - 1 if transposed else 0)
            extra.append(0)
            out.append(1)
        else:
            if size % term.divisor:
                return f"it divides {_NAMES[axis]} by {term.divisor}, and its {size} cells are no multiple"
            own = (size - 1) * term.weight + 1 if transposed else size // term.divisor
            target = own if wanted is None else wanted[axis]
            if target < own or (target > own and not transposed):
                return f"{_NAMES[axis]} has {own} cells then, but layers behind it expect {target}"
            kernel.append(term.divisor)
            stride.append(term.weight if transposed else term.divisor)
            padding.append(0)
            extra.append(target - own)
            out.append(target)
    try:
        return ConvGeometry(
            kernel_size=_triple(kernel), stride=_triple(stride), padding=_triple(padding), dilation=(1, 1, 1),
            output_padding=_triple(extra), input_spatial_shape=_triple(grid),
            output_spatial_shape=_triple(out), transposed=transposed,
        )  # fmt: skip
    except SiteError as error:
        return str(error)


def _axes(part: Part) -> list[Term | None] | str:
    """What each of three axes of the cells is made of; None for one that has a single cell."""
    lacking = 4 - len(part.columns)
    widths = int(part.indices.meta["val"].shape[1])
    first, *rest = part.columns
    if lacking < 0 or first.constant or [*map(_plain, first.terms)] != [(0, 1, 1)]:
        return "the first column of its cells is not the batch"
    found: list[Term | None] = [None] * lacking
    for axis, column in enumerate(rest, lacking):
        if column.constant or len(column.terms) != 1:
            return f"its coordinate {_NAMES[axis]} is not computed from one coordinate of the sites"
        (term,) = column.terms
        if term.axis == 0 or term.axis - 1 + (4 - widths) != axis:
            return "its cells have their axes in another order than the sites"
        found.append(term)
    return found


def _plain(term: Term) -> tuple[int, int, int]:
    return term.axis, term.weight, term.divisor


def _triple(values: Sequence[int]) -> Triple:
    z, y, x = (int(value) for value in values)
    return z, y, x
