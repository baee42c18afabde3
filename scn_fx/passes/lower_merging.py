# SPDX-License-Identifier: Apache-2.0
"""Turn merging of sites by `torch.unique` into pooling and unions."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import fx

from scn_fx.dimensions import lifted
from scn_fx.geometry import ConvGeometry, Triple
from scn_fx.graph import operator_spec
from scn_fx.graph_nodes import argument
from scn_fx.names import unique
from scn_fx.operators.spec import Kind
from scn_fx.operators.union import MOST_PARTS
from scn_fx.passes import nodes
from scn_fx.passes.base import GraphPass
from scn_fx.passes.index_columns import Part, parts_of
from scn_fx.passes.merged_grids import part_geometry
from scn_fx.passes.new_maps import add_call, add_conv_map, bound_of, extents_of, item_of, readings

__all__ = ["LowerMerging"]

_MERGERS = frozenset({"_unique2", "unique_dim"})
_SUMS = frozenset({"index_add", "scatter_add"})
_SUMS_OF_ROWS = "row_sums"  # scn_fx.capture.scattered
_REPEATS = frozenset({"expand", "expand_as", "repeat", "unsqueeze", "view"})
_ZEROS = frozenset({"new_zeros", "zeros", "zeros_like"})


class LowerMerging(GraphPass):
    """``cells, rows = unique(f(indices), dim=0)`` and the sums ``zeros.index_add(0, rows, x)`` become layers.

    Where f scales coordinates, divides them or leaves axes out, which site becomes which cell is a kernel
    map: that of a transposed convolution, of a strided one, or of one whose kernel is as long as the axis.
    The sum over a cell is then pooling over that map. Several tensors, joined before (`torch.cat`), are
    pooled one by one, and `scn_fx.union` adds what they have at each cell.

    The sites keep their axes: those that f leaves out have one cell, so that `indices` have a column of zeros
    for each of them, where the model has none. Sites ascend as those of every layer.
    """

    def call(self, graph: fx.GraphModule) -> bool:
        made = [
            _Merging(self, graph, node).rewrite()
            for node in list(graph.graph.nodes)
            if nodes.aten_name(node) in _MERGERS
        ]
        return any(made)


class _Merging:
    """One call of `torch.unique`."""

    def __init__(self, owner: GraphPass, graph: fx.GraphModule, node: fx.Node) -> None:
        self._owner, self._graph, self._node = owner, graph, node
        path = nodes.module_path(node)
        taken = {str(each.kwargs["name"]) for each in graph.graph.nodes if each.kwargs.get("name")}
        self._stem = unique(f"{path}.merge" if path else "merge", taken)

    def rewrite(self) -> bool:
        graph = self._graph
        sites = [(each, parts_of(graph, each, extents_of, self._node)) for each in self._sites()]
        sums = list(self._sums())
        parts = parts_of(graph, self._node.args[0], extents_of)
        if not parts or not sites or not all(found for _, found in sites):
            if parts:
                self._owner.refuse(self._node, "which sites it makes is not known from the indices alone")
            return False
        if len(parts) > MOST_PARTS:
            self._owner.refuse(self._node, f"it merges {len(parts)} tensors, and {MOST_PARTS} are the most")
            return False
        values = [self._features(each, parts) for each in sums]
        geometries = [self._geometries(node, found) for node, found in sites]
        if any(list(map(_merged_by, found)) != list(map(_merged_by, parts)) for _, found in sites):
            self._owner.refuse(self._node, "rows that differ become one cell afterwards")
            return False
        wrong = [each for each in (*values, *geometries) if isinstance(each, str)]
        if wrong or any(each != geometries[0] for each in geometries):
            reason = wrong[0] if wrong else "its cells are numbered in several ways"
            self._owner.refuse(self._node, str(reason))
            return False
        maps = self._make_sites(parts, geometries[0])  # type: ignore[arg-type]
        columns = int(sites[0][0].meta["val"].shape[1])
        if columns < int(parts[0].indices.meta["val"].shape[1]):
            self._owner.note(
                self._node,
                "merged sites keep their axes: indices are (batch, z, y, x), with 0 along those that the "
                "forward leaves out",
            )
        for node, _ in sites:
            node.replace_all_uses_with(self._merged)
        for node, features in zip(sums, values, strict=True):
            self._make_sum(node, features, maps)  # type: ignore[arg-type]
        return True

    def _sites(self) -> Iterator[fx.Node]:
        """The indices that are computed from the merged rows, as operators or the caller take them."""
        end = self._graph.graph.output_node()
        read = nodes.read_as(self._graph, Kind.SITES) | set(end.all_input_nodes)
        for value in self._graph.graph.nodes:
            kind = getattr(value.meta.get("val"), "dtype", None)
            if value not in read or kind not in (torch.int32, torch.int64) or nodes.index_sites(value):
                continue
            if self._makes(value):
                yield value

    def _makes(self, value: fx.Node) -> bool:
        """Whether indices are computed from the merged rows, not behind layers or another merging of them."""
        seen, pending = {value}, [value]
        for each in pending:  # grows while it is walked
            if each is self._node:
                return True
            if operator_spec(each) is None and nodes.aten_name(each) not in _MERGERS:
                pending += [before for before in each.all_input_nodes if before not in seen]
                seen.update(each.all_input_nodes)
        return False

    def _sums(self) -> Iterator[fx.Node]:
        """The operators that sum rows of features by the numbers of the cells."""
        pending = [u for u in self._node.users if u.target is operator.getitem and u.args[1] == 1]
        for each in pending:  # grows while it is walked
            for user in each.users:
                if nodes.aten_name(user) in _REPEATS:
                    pending.append(user)
                elif nodes.aten_name(user) in _SUMS or nodes.operator_name(user) == _SUMS_OF_ROWS:
                    yield user

    def _features(self, node: fx.Node, parts: Sequence[Part]) -> list[fx.Node] | str:
        """What a sum adds, by part; or why it is no sum of them."""
        if nodes.aten_name(node) is None:
            source = node.args[0]
        else:
            start, dim, _, source = node.args[:4]
            factor = argument(node, "alpha") if nodes.aten_name(node) == "index_add" else 1
            if nodes.aten_name(start) not in _ZEROS or dim != 0 or factor != 1:  # type: ignore[operator, arg-type]
                return "its rows are not summed from zero"
        joined = isinstance(source, fx.Node) and nodes.aten_name(source) == "cat"
        values = list(source.args[0]) if joined else [source]  # type: ignore[union-attr, arg-type]
        owners = [nodes.sites(each) if isinstance(each, fx.Node) else None for each in values]
        if len(values) != len(parts):
            return f"it merges indices of {len(parts)} tensor(s), but features of {len(values)}"
        for owner, part in zip(owners, parts, strict=True):
            given = owner is not None and owner.op == "placeholder" and part.indices.op == "placeholder"
            if owner is None or (owner is not nodes.index_sites(part.indices) and not given):
                return "its features and indices belong to different sites"
        return values  # type: ignore[return-value]

    def _geometries(self, node: fx.Node, parts: Sequence[Part]) -> list[ConvGeometry | None] | str:
        """Of the map from each part to the cells; None of a part that lies on them already."""
        wanted = next((_triple(shape) for shape, _ in readings(node)), None)
        found: list[ConvGeometry | None] = []
        for part in parts:
            extents = extents_of(part.indices)
            assert extents is not None
            made = part_geometry(part, lifted(extents[1:], 1), wanted)
            if isinstance(made, str):
                return made
            if wanted is None:
                wanted = made.output_spatial_shape
            found.append(None if made.volume == 1 and made.stride == (1, 1, 1) else made)
        return found

    def _make_sites(
        self, parts: Sequence[Part], geometries: Sequence[ConvGeometry | None]
    ) -> tuple[list[fx.Node | None], fx.Node | None]:
        """The maps of the parts (None of one that keeps its sites) and of the union, if there are several."""
        graph = self._graph
        maps: list[fx.Node | None] = []
        cells: list[fx.Node] = []
        with graph.graph.inserting_before(self._node):
            for number, (part, geometry) in enumerate(zip(parts, geometries, strict=True)):
                own, sites = None, part.indices
                if geometry is not None:
                    sites, own = add_conv_map(
                        graph, self._node, part.indices, geometry, self._name(number, parts)
                    )
                maps.append(own)
                cells.append(sites)
            if len(parts) == 1:
                self._merged = cells[0]
                return maps, None
            first = extents_of(parts[0].indices)
            assert first is not None
            shape = next((g.output_spatial_shape for g in geometries if g is not None), first[1:])
            both = add_call(
                graph, self._node, "union_map", (cells,), name="", batch_size=first[0],
                spatial_shape=lifted(shape, 1), output_bound=bound_of(graph),
            )  # fmt: skip
            self._merged = item_of(graph, both, 0)
            self._merged.meta["val"] = parts[0].indices.meta["val"]  # as wide
            return maps, item_of(graph, both, 1)

    def _name(self, number: int, parts: Sequence[Any]) -> str:
        return f"{self._stem}.{number}" if len(parts) > 1 else self._stem

    def _make_sum(
        self, node: fx.Node, features: Sequence[fx.Node], maps: tuple[list[fx.Node | None], fx.Node | None]
    ) -> None:
        own, of_all = maps
        specs = ((each, operator_spec(each)) for each in self._graph.graph.nodes)
        taken = {str(each.kwargs["name"]) for each, spec in specs if spec is not None and spec.layer}
        with self._graph.graph.inserting_before(node):
            values = []
            for number, (x, kernel_map) in enumerate(zip(features, own, strict=True)):
                if kernel_map is not None:
                    name = unique(self._name(number, own), taken)
                    x = add_call(self._graph, self._node, "pool", (x, kernel_map), name=name, kind="sum")
                    x.meta = dict(node.meta)
                values.append(x)
            result = values[0]
            if of_all is not None:
                result = add_call(self._graph, self._node, "union", (values, of_all), name="")
                result.meta = dict(node.meta)
        node.replace_all_uses_with(result)


def _merged_by(part: Part) -> set[tuple[int, int]]:
    """What two rows must have in common to be one cell: coordinates, by what they are divided."""
    return {(term.axis, term.divisor) for column in part.columns for term in column.terms}


def _triple(shape: Sequence[int]) -> Triple:
    z, y, x = shape
    return z, y, x
