# SPDX-License-Identifier: Apache-2.0
"""What a forward computes from index columns: whole numbers that are sums of scaled or divided coordinates.

Models that merge sites scale the indices of coarse levels, divide those of fine ones, leave columns out, or
number cells by one sum of them all, and take that apart again. Each such column is here a `Column`: a sum of
terms ``weight * (coordinate // divisor)``, of which it is known how large they can be.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import fx

from scn_fx.passes import nodes

__all__ = ["Column", "Part", "Term", "parts_of"]


@dataclass(frozen=True)
class Term:
    """``weight * (coordinate // divisor)``, of the coordinate in column `axis`, which is below `extent`."""

    axis: int
    extent: int
    weight: int = 1
    divisor: int = 1

    @property
    def largest(self) -> int:
        """The largest value that it can have."""
        return self.weight * ((self.extent - 1) // self.divisor)


@dataclass(frozen=True)
class Column:
    """A sum of terms, and a number."""

    terms: tuple[Term, ...]
    constant: int = 0

    def plus(self, other: Column | int) -> Column | None:
        """Their sum."""
        if isinstance(other, int):
            return Column(self.terms, self.constant + other)
        return Column(self.terms + other.terms, self.constant + other.constant)

    def times(self, factor: int) -> Column | None:
        """A multiple; None for a negative one."""
        if factor < 0:
            return None
        terms = [Term(t.axis, t.extent, t.weight * factor, t.divisor) for t in self.terms]
        return Column(tuple(terms), self.constant * factor)

    def over(self, number: int) -> Column | None:
        """The whole part of a quotient; None where it is no such sum."""
        if number <= 0 or self.constant:
            return None
        if len(self.terms) == 1 and self.terms[0].weight == 1:
            (term,) = self.terms
            return Column((Term(term.axis, term.extent, 1, term.divisor * number),))
        multiples, rest = self._apart(number)
        if rest is None:
            return None
        return Column(tuple(Term(t.axis, t.extent, t.weight // number, t.divisor) for t in multiples))

    def modulo(self, number: int) -> Column | None:
        """The rest of a division; None where it is no such sum."""
        if number <= 0 or self.constant:
            return None
        rest = self._apart(number)[1]
        return None if rest is None else Column(tuple(rest))

    def _apart(self, number: int) -> tuple[list[Term], list[Term] | None]:
        """Terms that are multiples of a number whatever the coordinates, and the rest if it stays below."""
        multiples = [term for term in self.terms if term.weight % number == 0]
        rest = [term for term in self.terms if term.weight % number]
        return multiples, rest if sum(term.largest for term in rest) < number else None


@dataclass(frozen=True)
class Part:
    """Rows that stand for the sites of one sparse tensor.

    Attributes:
        indices: the node of its indices.
        columns: of each row; one for a value that has no axis of columns.
        flat: whether it has none.
    """

    indices: fx.Node
    columns: tuple[Column, ...]
    flat: bool = False


Grids = Callable[[fx.Node], Sequence[int] | None]
"""The extents of the columns of an index tensor, batch first; None if they are not known."""

_SAME = frozenset({"_to_copy", "alias", "clone", "contiguous", "detach", "lift_fresh_copy", "to"})


def parts_of(graph: fx.GraphModule, node: object, grids: Grids, merged: fx.Node | None = None) -> list[Part]:
    """The parts, one after another, that the rows of an integer tensor are; none where they are not known.

    `merged` is an operator that merges equal rows: what is computed from its first result is computed from
    its operand's rows, whichever of equal ones.
    """
    return _Reader(graph, grids, merged).read(node) or []


class _Reader:
    def __init__(self, graph: fx.GraphModule, grids: Grids, merged: fx.Node | None) -> None:
        self._graph, self._grids, self._merged = graph, grids, merged

    def read(self, node: object) -> list[Part] | None:
        if not isinstance(node, fx.Node):
            return None
        if node.target is operator.getitem and node.args[0] is self._merged and self._merged is not None:
            return self.read(self._merged.args[0]) if node.args[1] == 0 else None
        name = nodes.aten_name(node)
        if nodes.index_sites(node) is not None and name is None:
            return self._given(node)
        if name in _SAME:
            return self.read(node.args[0])
        rule = getattr(self, f"_{name}", None) if name is not None else None
        return None if rule is None else rule(node)

    def _given(self, node: fx.Node) -> list[Part] | None:
        extents = self._grids(node)
        if extents is None:
            return None
        columns = tuple(Column((Term(axis, int(size)),)) for axis, size in enumerate(extents))
        return [Part(node, columns)]

    def _cat(self, node: fx.Node) -> list[Part] | None:
        dim, found = _argument(node, "dim", 0), [self.read(each) for each in node.args[0]]  # type: ignore[union-attr]
        if any(each is None for each in found):
            return None
        parts = [each for each in found if each is not None]
        if dim == 0:
            return [part for each in parts for part in each]
        return _side_by_side(parts, flat=False)

    def _stack(self, node: fx.Node) -> list[Part] | None:
        parts = [self.read(each) for each in node.args[0]]  # type: ignore[union-attr]
        if _argument(node, "dim", 0) not in (1, -1):
            return None
        found = [each for each in parts if each is not None and all(part.flat for part in each)]
        return _side_by_side(found, flat=True) if len(found) == len(parts) else None

    def _index(self, node: fx.Node) -> list[Part] | None:
        chosen = node.args[1]
        if not isinstance(chosen, list | tuple) or len(chosen) != 2 or chosen[0] is not None:
            return None
        return self._columns(node, _numbers(self._graph, chosen[1]))

    def _index_select(self, node: fx.Node) -> list[Part] | None:
        if node.args[1] not in (1, -1):
            return None
        return self._columns(node, _numbers(self._graph, node.args[2]))

    def _select(self, node: fx.Node) -> list[Part] | None:
        _, dim, column = node.args
        parts = self._columns(node, [int(column)]) if dim in (1, -1) else None  # type: ignore[arg-type]
        return None if parts is None else [Part(part.indices, part.columns, flat=True) for part in parts]

    def _unsqueeze(self, node: fx.Node) -> list[Part] | None:
        parts = self.read(node.args[0])
        if parts is None or node.args[1] not in (1, -1) or not all(part.flat for part in parts):
            return None
        return [Part(part.indices, part.columns) for part in parts]

    def _slice(self, node: fx.Node) -> list[Part] | None:
        parts, dim = self.read(node.args[0]), _argument(node, "dim", 0)
        if parts is None:
            return None
        chosen = _sliced(node, len(parts[0].columns) if dim in (1, -1) else None)
        if dim == 0:
            return parts if chosen is None else None
        return None if chosen is None else self._columns(node, list(chosen))

    def _slice_scatter(self, node: fx.Node) -> list[Part] | None:
        whole, written = self.read(node.args[0]), self.read(node.args[1])
        if whole is None or written is None or len(whole) != len(written):
            return None
        if _argument(node, "dim", 0) == 0:
            return written if _sliced(node, None) is None else None
        made = []
        for old, new in zip(whole, written, strict=True):
            columns, chosen = list(old.columns), _sliced(node, len(old.columns))
            if old.indices is not new.indices or chosen is None or len(chosen) != len(new.columns):
                return None
            for at, column in zip(chosen, new.columns, strict=True):
                columns[at] = column
            made.append(Part(old.indices, tuple(columns)))
        return made

    def _copy(self, node: fx.Node) -> list[Part] | None:
        return self.read(node.args[1])

    def _mul(self, node: fx.Node) -> list[Part] | None:
        return self._each(node, Column.times)

    def _floor_divide(self, node: fx.Node) -> list[Part] | None:
        return self._each(node, Column.over)

    def _div(self, node: fx.Node) -> list[Part] | None:
        if _argument(node, "rounding_mode", None) not in (
            "floor",
            "trunc",
        ):  # the same of what is not negative
            return None
        return self._each(node, Column.over)

    def _remainder(self, node: fx.Node) -> list[Part] | None:
        return self._each(node, Column.modulo)

    def _add(self, node: fx.Node) -> list[Part] | None:
        first, second = (self.read(each) for each in node.args[:2])
        if _argument(node, "alpha", 1) != 1 or first is None:
            return None
        if second is None:
            return self._each(node, Column.plus)
        if [_form(part) for part in first] != [_form(part) for part in second]:
            return None
        pairs = zip(first, second, strict=True)
        return [_mapped(a, [x.plus(y) for x, y in zip(a.columns, b.columns, strict=True)]) for a, b in pairs]  # type: ignore[misc]

    def _each(self, node: fx.Node, change: Callable[[Column, int], Column | None]) -> list[Part] | None:
        parts, number = self.read(node.args[0]), node.args[1]
        if parts is None or isinstance(number, bool) or not isinstance(number, int):
            return None
        made = [_mapped(part, [change(column, number) for column in part.columns]) for part in parts]
        return None if None in made else made  # type: ignore[return-value]

    def _columns(self, node: fx.Node, chosen: list[int] | None) -> list[Part] | None:
        parts = self.read(node.args[0])
        if parts is None or chosen is None:
            return None
        made = []
        for part in parts:
            width = len(part.columns)
            if part.flat or any(not -width <= at < width for at in chosen):
                return None
            made.append(Part(part.indices, tuple(part.columns[at] for at in chosen)))
        return made


def _form(part: Part) -> tuple[fx.Node, int, bool]:
    return part.indices, len(part.columns), part.flat


def _mapped(part: Part, columns: list[Column | None]) -> Part | None:
    found = [column for column in columns if column is not None]
    return Part(part.indices, tuple(found), part.flat) if len(found) == len(columns) else None


def _side_by_side(values: list[list[Part]], *, flat: bool) -> list[Part] | None:
    """Parts of the same rows with the columns of all of them; `flat`: whether each has no axis of columns."""
    made = []
    for rows in zip(*values, strict=False):
        if len({part.indices for part in rows}) > 1 or any(part.flat is not flat for part in rows):
            return None
        made.append(Part(rows[0].indices, tuple(column for part in rows for column in part.columns)))
    return made if len({len(each) for each in values}) == 1 else None


def _argument(node: fx.Node, name: str, default: Any) -> Any:
    try:
        return nodes.argument(node, name)
    except KeyError:
        return default


def _sliced(node: fx.Node, width: int | None) -> range | None:
    """Which of `width` columns a slice takes; with None: None if it takes all there are."""
    start, end, step = (_argument(node, name, None) for name in ("start", "end", "step"))
    if any(each is not None and not isinstance(each, int) for each in (start, end, step)):
        return range(0)
    if width is None:
        everything = not start and (end is None or end >= 2**62) and step in (None, 1)
        return None if everything else range(0)
    return range(width)[slice(start, end, step)]


def _numbers(graph: fx.GraphModule, value: object) -> list[int] | None:
    if isinstance(value, list | tuple):
        return [int(each) for each in value] if all(isinstance(each, int) for each in value) else None
    stored = nodes.attribute(graph, value)
    return None if stored is None or stored.is_floating_point() else [int(v) for v in stored.flatten()]
