# SPDX-License-Identifier: Apache-2.0
"""Values that are made of others channel by channel, row for row: y = Σ M_s x_s + c.

Linear, mm, BatchNorm in evaluation, concatenation, slices, sums and reshapes of channels, scales and shifts
are all of this kind, in any order. The matrices are not derived operator by operator: the program itself is
run, in float64, on unit vectors.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from scn_fx.graph_nodes import operator_spec
from scn_fx.operators.spec import Kind
from scn_fx.passes import nodes

__all__ = ["ChannelMap", "ChannelMaps", "is_source"]


@dataclass(frozen=True)
class ChannelMap:
    """One value.

    Attributes:
        terms: for each value x_s that it is made of, the matrix M_s [C, C_s], float64.
        constant: c, float64 [C].
    """

    terms: Mapping[fx.Node, torch.Tensor]
    constant: torch.Tensor

    @property
    def channels(self) -> int:
        return len(self.constant)

    @property
    def shifts(self) -> bool:
        """Whether there is a constant: then it is not zero where its terms are."""
        return bool(self.constant.any())

    @property
    def single(self) -> tuple[fx.Node, torch.Tensor] | None:
        """The only term, if there is one alone."""
        return next(iter(self.terms.items())) if len(self.terms) == 1 else None

    @property
    def same(self) -> fx.Node | None:
        """The value that it equals, or None."""
        if self.single is None or self.shifts:
            return None
        source, matrix = self.single
        return source if is_identity(matrix) else None

    def part(self, first: int, last: int) -> ChannelMap:
        """The channels [first, last), of those terms that they are made of."""
        kept = {source: matrix[first:last] for source, matrix in self.terms.items()}
        used = {source: matrix for source, matrix in kept.items() if bool(matrix.any())}
        return ChannelMap(used or kept, self.constant[first:last])

    def pieces(self) -> list[tuple[int, int]]:
        """Ranges of channels that are made of one value each, as a concatenation's are.

        The whole where some channel is made of several values, or where there would be very many.
        """
        whole = [(0, self.channels)]
        owners: list[fx.Node | None] = []
        for channel in range(self.channels):
            used = [source for source, matrix in self.terms.items() if bool(matrix[channel].any())]
            if len(used) > 1:
                return whole
            owners.append(used[0] if used else None)
        found: list[tuple[int, int, fx.Node | None]] = []
        for channel, owner in enumerate(owners):
            first, _, last_owner = found[-1] if found else (0, 0, owner)
            if found and (owner is None or last_owner is None or owner is last_owner):
                found[-1] = (first, channel + 1, last_owner or owner)
            else:
                found.append((channel, channel + 1, owner))
        return [(first, last) for first, last, _ in found] if len(found) <= _MOST_PIECES else whole

    def through(self, made: Mapping[fx.Node, ChannelMap]) -> ChannelMap:
        """The same, with terms that are channel maps themselves replaced by what those are made of."""
        terms: dict[fx.Node, torch.Tensor] = {}
        constant = self.constant
        for source, matrix in self.terms.items():
            inner = made.get(source)
            pairs: Any = {source: matrix} if inner is None else _composed(matrix, inner)
            if inner is not None:
                constant = constant + matrix @ inner.constant
            for each, product in pairs.items():
                terms[each] = terms[each] + product if each in terms else product
        return ChannelMap(terms, constant)


_MOST_PIECES = 16


def _composed(matrix: torch.Tensor, inner: ChannelMap) -> dict[fx.Node, torch.Tensor]:
    return {source: matrix @ each for source, each in inner.terms.items()}


def is_identity(matrix: torch.Tensor) -> bool:
    rows, columns = matrix.shape
    return rows == columns and bool((matrix == torch.eye(rows, dtype=matrix.dtype)).all())


def is_diagonal(matrix: torch.Tensor) -> bool:
    """Whether each channel is made of the one in its place alone."""
    rows, columns = matrix.shape
    return rows == columns and bool((matrix == matrix.diagonal().diag()).all())


def is_source(node: object) -> bool:
    """Whether a value is features that an operator of ours, or nobody in the graph, computes."""
    if not isinstance(node, fx.Node):
        return False
    spec = operator_spec(node)
    if spec is not None:
        return spec.gives == (Kind.FEATURES,)
    return node.op == "placeholder" and getattr(node.meta.get("val"), "is_floating_point", bool)()


class ChannelMaps:
    """Finds the channel maps of a graph's values."""

    def __init__(self, graph: fx.GraphModule) -> None:
        self._graph = graph

    def region(self, node: fx.Node) -> tuple[set[fx.Node], list[fx.Node]] | None:
        """The aten nodes that make a value from features, and these; None if others take part."""
        inner: set[fx.Node] = set()
        sources: dict[fx.Node, None] = {}
        waiting = [node]
        while waiting:
            at = waiting.pop()
            if at in inner:
                continue
            if is_source(at):
                sources[at] = None
            elif at.target is operator.getitem or nodes.aten_name(at) in nodes.ROWWISE:
                inner.add(at)
                waiting += [each for each in at.all_input_nodes if not self._known(each)]
            else:
                return None
        return (inner, list(sources)) if sources and inner else None

    def _known(self, node: fx.Node) -> bool:
        """Whether a value is stored in the model, or a size."""
        size = isinstance(node.meta.get("val"), int | torch.SymInt)
        return size or nodes.attribute(self._graph, node) is not None

    def of(self, node: fx.Node) -> ChannelMap | str:
        """The channel map of a value [N, C]; or why it is none, to follow "it is not supported: "."""
        found = self.region(node)
        shape: Sequence[Any] = getattr(node.meta.get("val"), "shape", ())
        if found is None or len(shape) != 2 or not isinstance(shape[-1], int):
            return "it is not computed from features row by row"
        _, sources = found
        places = {nodes.sites(source) for source in sources}
        if None in places:
            return "it is made of what is not supported"
        if len(places) != 1:
            return "its operands lie on different sites"
        widths = [int(source.meta["val"].shape[-1]) for source in sources]
        total = sum(widths)
        try:
            made = self._linear(node, sources, widths, total, int(shape[-1]))
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            return f"it mixes rows, or cannot be computed ({str(error).splitlines()[0]})"
        if made is None:
            return "its rows depend on other rows, or it is not linear"
        if not all(bool(matrix.isfinite().all()) for matrix in (*made.terms.values(), made.constant)):
            return "its parameters or statistics are not finite, or a variance is negative"
        return made

    def _linear(
        self, node: fx.Node, sources: Sequence[fx.Node], widths: Sequence[int], total: int, channels: int
    ) -> ChannelMap | None:
        units = torch.eye(total + 1, total, dtype=torch.float64)  # the last row is zero
        result = self._run(node, dict(zip(sources, units.split(list(widths), 1), strict=True)))
        if result.shape != (total + 1, channels):
            return None
        constant = result[-1]
        matrix = (result[:-1] - constant).t().contiguous()
        made = ChannelMap(dict(zip(sources, matrix.split(list(widths), 1), strict=True)), constant)
        # Another number of rows, with other values: what is no channel map shows.
        random = torch.Generator().manual_seed(0)
        rows = torch.randn(total + 4, total, dtype=torch.float64, generator=random)
        found = self._run(node, dict(zip(sources, rows.split(list(widths), 1), strict=True)))
        expected = rows @ matrix.t() + constant
        if found.shape != expected.shape:
            return None
        if bool(expected.isfinite().all()) and not torch.allclose(found, expected, rtol=1e-9, atol=1e-9):
            return None
        return made

    def _run(self, node: fx.Node, given: Mapping[fx.Node, torch.Tensor]) -> torch.Tensor:
        """Run the nodes that make a value, in float64, on other rows."""
        rows = len(next(iter(given.values())))
        count = {str(source.meta["val"].shape[0]) for source in given}
        values: dict[fx.Node, Any] = dict(given)

        def value(at: fx.Node) -> Any:
            if at not in values:
                values[at] = self._computed(at, value, rows, count)
            return values[at]

        result = value(node)
        if not isinstance(result, torch.Tensor):
            raise TypeError("it is no tensor")
        return result

    def _computed(self, at: fx.Node, value: Any, rows: int, count: set[str]) -> Any:
        stored = nodes.attribute(self._graph, at)
        if stored is not None:
            return stored.double() if stored.is_floating_point() else stored
        size = at.meta.get("val")
        if isinstance(size, int | torch.SymInt):
            if str(size) in count:
                return rows
            if isinstance(size, int):
                return size
            raise ValueError("a size is computed from the number of voxels")
        args, kwargs = fx.node.map_arg((at.args, at.kwargs), value)
        return at.target(*args, **kwargs)  # type: ignore[operator]
