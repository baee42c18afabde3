# SPDX-License-Identifier: Apache-2.0
"""Concatenation, BatchNorm anywhere, Linear, sums and slices of channels: as convolutions and additions."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from math import prod

import torch
from torch import fx

from scn_fx.graph_nodes import argument, operands, operator_spec
from scn_fx.operators.activations import ACTIVATIONS, NO_ACTIVATION
from scn_fx.operators.affine import AFFINE
from scn_fx.operators.dialects import LIBSPCONV
from scn_fx.operators.spec import Kind, OperatorSpec
from scn_fx.passes import nodes
from scn_fx.passes.base import GraphPass
from scn_fx.passes.channel_maps import ChannelMap, ChannelMaps, is_diagonal, is_identity
from scn_fx.passes.pointwise import LayerMaker

__all__ = ["LowerChannelMaps"]


class LowerChannelMaps(GraphPass):
    """Values y = Σ M_s x_s + c (see `ChannelMap`) become layers that every dialect has.

    - A convolution W of y, where c is zero or the kernel has one offset, is a sum of convolutions::

          W * (Σ M_s x_s + c)  =  Σ (W M_s) * x_s  [+ W c]

      so a concatenation is read by one convolution for each of its parts, with the parts' columns of W, and
      each has an input range of its own. With other kernels c must not be folded: where a neighbour is
      missing, W would see c in the model's place of nothing.
    - A ReLU or another activation of a concatenation is one of each part.
    - M and c alone go into the convolution that makes x, or into both sides of a sum of convolutions (c into
      one), where nobody else reads those and no channels are added.
    - Else they are a convolution of one offset, and a sum of several such. A diagonal M is an `affine` layer
      instead, where the dialect has that.

    All products are made in float64 and rounded once to float32.
    """

    def __init__(self, dialect: str = LIBSPCONV) -> None:
        super().__init__()
        self._scales = AFFINE.belongs(dialect)

    def call(self, graph: fx.GraphModule) -> bool:
        work = _Lowering(graph, self.refuse, self._scales)
        for node in list(graph.graph.nodes):
            spec = operator_spec(node)
            if node.op == "output":
                work.output(node)
            elif spec is not None and spec.layer:
                work.layer(node, spec)
        return work.modified


class _Lowering:
    """One run of the pass."""

    def __init__(self, graph: fx.GraphModule, refuse: Callable[[fx.Node, str], None], scales: bool) -> None:
        self.modified = False
        self._scales = scales  # whether there are affine layers
        self._graph = graph
        self._refuse = refuse
        self._maps = ChannelMaps(graph)
        self._make = LayerMaker(graph)
        self._known: dict[fx.Node, ChannelMap | None] = {}
        self._virtual: dict[fx.Node, ChannelMap] = {}  # activations that are several now
        self._made: dict[tuple[fx.Node, int, int], fx.Node] = {}

    def layer(self, node: fx.Node, spec: OperatorSpec) -> None:
        """Give a layer operands that are computed by layers."""
        for value in operands(node, Kind.FEATURES):
            made = self._map(value)
            if made is None:
                continue
            if spec.weighted and self._convolution(node, value, made):
                continue
            if spec.activation is not None and len(made.pieces()) > 1:
                self._activation(node, value, made)
                continue
            self._replace(node, value, self._value(node, value, made))

    def output(self, node: fx.Node) -> None:
        for value in node.all_input_nodes:
            made = self._map(value)
            if made is not None:
                self._replace(node, value, self._value(node, value, made))

    def _replace(self, node: fx.Node, value: fx.Node, other: fx.Node) -> None:
        node.replace_input_with(value, other)
        self.modified = True

    def _map(self, value: object) -> ChannelMap | None:
        """What a value is made of; None if it is a layer's result, or nothing that this pass knows."""
        if not isinstance(value, fx.Node):
            return None
        if value in self._virtual:
            return self._virtual[value]
        if value not in self._known:
            self._known[value] = None
            if self._maps.region(value) is not None and operator_spec(value) is None:
                found = self._maps.of(value)
                if isinstance(found, ChannelMap):
                    self._known[value] = found.through(self._virtual)
                else:
                    self._refused(value, found)
        return self._known[value]

    def _refused(self, value: fx.Node, reason: str) -> None:
        """Note why a value cannot be lowered, at the operators that may be the cause: errors name the first.

        Those on the way to an earlier value that is a channel map are not.
        """
        region = self._maps.region(value)
        inner = region[0] if region is not None else {value}
        fine: set[fx.Node] = set()
        for node in self._graph.graph.nodes:
            if node in inner and node not in fine and isinstance(self._maps.of(node), ChannelMap):
                made = self._maps.region(node)
                fine |= made[0] if made is not None else set()
        for node in inner - fine - {value}:
            nodes.add_reason(node, reason)
        self._refuse(value, reason)

    # Values

    def _value(self, before: fx.Node, value: fx.Node, made: ChannelMap) -> fx.Node:
        """A layer that computes the whole value."""
        return self._part(before, value, made, 0, made.channels)

    def _part(self, before: fx.Node, value: fx.Node, made: ChannelMap, first: int, last: int) -> fx.Node:
        """A layer that computes some channels of a value."""
        key = (value, first, last)
        if key not in self._made:
            self._made[key] = self._computed(before, value, made.part(first, last), first)
        return self._made[key]

    def _computed(self, before: fx.Node, value: fx.Node, made: ChannelMap, first: int) -> fx.Node:
        """A layer that computes `made`, which is the value's channels from `first` on."""
        same = made.same
        if same is not None:
            return same
        stem = nodes.module_path(value) or _operator(value)
        goes = {s: self._owned(value, s, m) and self._folds(s, m) for s, m in made.terms.items()}
        constant, done = made.constant, {}
        # The constant goes into a layer that is there, if there is one.
        for source, matrix in sorted(made.terms.items(), key=lambda term: not goes[term[0]]):
            if is_identity(matrix) and not bool(constant.any()):
                done[source] = source
            elif goes[source]:
                self._fold(source, matrix, constant)
                self._absorbed(value, source, first, made.channels)
                done[source] = source
            elif self._scales and is_diagonal(matrix):
                done[source] = self._make.affine(before, source, matrix.diagonal(), constant, stem, value)
            else:
                done[source] = self._make.pointwise(before, source, matrix, constant, stem, value)
            constant = torch.zeros_like(constant)
        total, *rest = (done[source] for source in made.terms)
        for term in rest:
            total = self._make.add(before, total, term, value)
        return total

    def _owned(self, value: fx.Node, source: fx.Node, matrix: torch.Tensor) -> bool:
        """Whether `matrix` is all that becomes of `source`, and everything that reads it leads to `value`."""
        whole = self._map(value)
        if whole is None or int(whole.terms[source].any(1).sum()) != int(matrix.any(1).sum()):
            return False  # other channels of the value are made of it, too
        if any(operator_spec(user) is None and user.op != "output" for user in value.users):
            return False  # another value is made of this one, and known by what `source` was
        found = self._maps.region(value)
        if found is None:
            return False
        inner = found[0]
        between = {node for node in inner if node is not value}
        return all(
            user in inner or _is_size(user) for node in (source, *between) for user in node.users
        ) and source not in self._virtual  # fmt: skip

    def _folds(self, source: fx.Node, matrix: torch.Tensor) -> bool:
        """Whether a matrix can go into the weights that make a value."""
        spec = operator_spec(source)
        if spec is None or not spec.fuses or argument(source, "activation") != NO_ACTIVATION:
            return False
        if matrix.shape[0] > matrix.shape[1]:
            return False  # the larger kernel would compute more channels
        if spec.weighted:
            weight, bias = (nodes.attribute(self._graph, source.args[i]) for i in (1, 2))
            return weight is not None and (bias is not None or source.args[2] is None)
        sides = operands(source, Kind.FEATURES)
        alone = all(isinstance(side, fx.Node) and set(side.users) == {source} for side in sides)
        return alone and sides[0] is not sides[1] and all(self._folds(side, matrix) for side in sides)

    def _absorbed(self, value: fx.Node, source: fx.Node, first: int, count: int) -> None:
        """From now on `source` is, but for other terms, what was `count` channels of a value."""
        whole = self._known[value]
        assert whole is not None
        matrix = torch.zeros((whole.channels, count), dtype=torch.float64)
        matrix[first : first + count] = torch.eye(count, dtype=torch.float64)
        constant = whole.constant.clone()
        constant[first : first + count] = 0.0
        self._known[value] = ChannelMap({**whole.terms, source: matrix}, constant)

    def _fold(self, source: fx.Node, matrix: torch.Tensor, constant: torch.Tensor) -> None:
        """Let a value be `matrix` times what it was, plus a constant."""
        known = source.meta["val"]
        source.meta["val"] = known.new_empty((known.shape[0], matrix.shape[0]))
        spec = operator_spec(source)
        assert spec is not None
        if not spec.weighted:
            first, second = operands(source, Kind.FEATURES)
            self._fold(first, matrix, constant)
            self._fold(second, matrix, torch.zeros_like(constant))
            return
        weight, bias = (nodes.attribute(self._graph, source.args[i]) for i in (1, 2))
        assert weight is not None
        made = torch.einsum("oc,c...->o...", matrix, weight.double())
        shift = constant if bias is None else constant + matrix @ bias.double()
        stored = nodes.new_attribute(self._graph, source, "folded_weight", made.float())
        source.update_arg(1, stored)
        offset = nodes.new_attribute(self._graph, source, "folded_bias", shift.float())
        source.update_arg(2, offset if bias is not None or bool(shift.any()) else None)

    # Readers

    def _activation(self, node: fx.Node, value: fx.Node, made: ChannelMap) -> None:
        """One activation for each piece of a value; all of them together are the node's value."""
        terms: dict[fx.Node, torch.Tensor] = {}
        units = torch.eye(made.channels, dtype=torch.float64)
        for first, last in made.pieces():
            part = self._part(node, value, made, first, last)
            terms[self._make.activation(node, part, node)] = units[:, first:last].contiguous()
        self._virtual[node] = ChannelMap(terms, torch.zeros(made.channels, dtype=torch.float64))
        self.modified = True

    def _convolution(self, node: fx.Node, value: fx.Node, made: ChannelMap) -> bool:
        """Let a convolution read what its input is made of; False if it has to read the value itself."""
        weight = nodes.attribute(self._graph, node.args[1])
        bias = nodes.attribute(self._graph, node.args[2])
        if weight is None or (bias is None and node.args[2] is not None):
            return False
        wide = weight.double()
        shift = torch.zeros(len(wide), dtype=torch.float64) if bias is None else bias.double()
        parts: dict[fx.Node, torch.Tensor] = {}
        for first, last in made.pieces():
            columns = wide[..., first:last]
            source, matrix, constant = self._read(node, value, made, first, last, prod(weight.shape[1:4]))
            factor = columns if matrix is None else columns @ matrix
            parts[source] = parts[source] + factor if source in parts else factor
            if constant is not None:
                shift = shift + (columns @ constant).reshape(len(shift))
        self._split(node, list(parts.items()), shift if bias is not None or bool(shift.any()) else None)
        self.modified = True
        return True

    def _read(
        self, node: fx.Node, value: fx.Node, made: ChannelMap, first: int, last: int, volume: int
    ) -> tuple[fx.Node, torch.Tensor | None, torch.Tensor | None]:
        """What a convolution reads for some channels: a value, and what of it goes into the weights."""
        part = made.part(first, last)
        key = (value, first, last)
        if key not in self._made and part.single is not None and (volume == 1 or not part.shifts):
            source, matrix = part.single
            if is_identity(matrix):
                return source, None, part.constant if part.shifts else None
            owned = self._owned(value, source, matrix) and self._folds(source, matrix)
            if not owned and matrix.shape[1] <= matrix.shape[0]:  # no more channels to read
                return source, matrix, part.constant if part.shifts else None
        return self._part(node, value, made, first, last), None, None

    def _split(
        self, node: fx.Node, parts: Sequence[tuple[fx.Node, torch.Tensor]], shift: torch.Tensor | None
    ) -> None:
        """Make a convolution a sum of convolutions, one for each part; the bias goes with the first."""
        name, kernel_map = str(node.kwargs["name"]), node.args[3]
        assert isinstance(kernel_map, fx.Node)
        if len(parts) == 1:
            (source, weight) = parts[0]
            stored = nodes.new_attribute(self._graph, node, "made_weight", weight.float())
            offset = (
                None if shift is None else nodes.new_attribute(self._graph, node, "made_bias", shift.float())
            )
            node.args = (source, stored, offset, kernel_map)
            return
        fused = node.kwargs.get("activation", NO_ACTIVATION)
        keywords = {
            key: node.kwargs[key] for key in ("activation", "activation_parameter") if key in node.kwargs
        }
        total: fx.Node | None = None
        for number, (source, weight) in enumerate(parts):
            bias = shift if number == 0 else None
            one = self._make.convolution(
                node, source, kernel_map, weight, bias, self._make.name(f"{name}.part{number}"), node
            )
            last = number == len(parts) - 1
            fuse = keywords if last and ACTIVATIONS[str(fused)].operator else {}
            total = one if total is None else self._make.add(node, total, one, node, **fuse)
        assert total is not None
        node.replace_all_uses_with(total)


def _operator(node: fx.Node) -> str:
    """Name of the aten operator that makes a value."""
    while node.target is operator.getitem and isinstance(node.args[0], fx.Node):
        node = node.args[0]
    return nodes.aten_name(node) or "channels"


def _is_size(node: fx.Node) -> bool:
    return isinstance(node.meta.get("val"), int | torch.SymInt)
