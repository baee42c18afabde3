# SPDX-License-Identifier: Apache-2.0
"""Replace operators that write into memory by the ones that return a new value."""

from __future__ import annotations

import operator

import torch
from torch import fx

from scn_fx.passes import nodes
from scn_fx.passes.base import GraphPass
from scn_fx.passes.memory import Memory, View, functional_form
from scn_fx.passes.module_marks import at_line
from scn_fx.passes.refused import mark_refused

__all__ = ["Functionalise"]


class Functionalise(GraphPass):
    """Every value becomes a value of its own: no operator writes, and none returns its input.

    `y = relu_(x)` becomes `y = relu(x)`, and everything after it that reads x, or another name of x
    (`dropout(x)` in evaluation, `x.float()` of a float, a view of x's own shape), reads y. Which values are
    names of one tensor is found by running the program without data (`scn_fx.passes.memory`). Three things
    cannot be expressed so; they are marked, and are an error if the chosen output depends on them:

    - a value in another shape of memory that was written meanwhile, but for whole indices after some of their
      columns were written (`indices[:, 1:] *= 2`), which become a value of their own too,
    - writing into a parameter or buffer, for a graph has no memory of its own,
    - an operator that writes and has no form that returns the result.
    """

    def call(self, graph: fx.GraphModule) -> bool:
        rewriting = _Rewriting(graph)
        for node in list(graph.graph.nodes):
            rewriting.visit(node)
        return rewriting.modified


class _Rewriting:
    """One walk over a graph in program order."""

    def __init__(self, graph: fx.GraphModule) -> None:
        self.modified = False
        self._graph = graph.graph
        memory = Memory(graph)
        self._views: dict[fx.Node, View] = memory.views
        self._idle = memory.idle
        self._current: dict[View, fx.Node] = {}  # the node that holds what a view reads now
        self._versions: dict[int, int] = {}  # storage → number of writes
        self._made: dict[fx.Node, int] = {}  # node → that number when it was made
        self._writers: dict[int, str] = {}  # storage → the last operator that wrote, in words
        self._stored = {
            self._views[n].storage for n in graph.graph.nodes if n.op == "get_attr" and n in self._views
        }

    def visit(self, node: fx.Node) -> None:
        if nodes.aten_name(node) != "sym_size":  # a size does not depend on what was written
            self._read_current(node)
        if nodes.aten_name(node) is not None:
            written = None if node in self._idle else _written(node)
            if nodes.aten_name(node) == "copy_" and node.args[0] is node.args[1]:  # x[:, 1:] *= 2 ends so
                node.replace_all_uses_with(node.args[0])  # type: ignore[arg-type]
                self._graph.erase_node(node)
                self.modified = True
                return
            if written is not None:
                self._write(node, written)
                return
        # An item of what chunk or split returns is a view too.
        if (nodes.aten_name(node) or node.target is operator.getitem) and self._drop_if_same(node):
            return
        self._remember(node)

    def _remember(self, node: fx.Node) -> None:
        view = self._views.get(node)
        if view is not None:
            self._current[view] = node
            self._made[node] = self._versions.get(view.storage, 0)

    def _read_current(self, node: fx.Node) -> None:
        """Let the node read what its operands hold now."""
        for operand in node.all_input_nodes:
            view = self._views.get(operand)
            if view is None or self._made.get(operand, 0) == self._versions.get(view.storage, 0):
                continue
            current = self._current.get(view)
            if current is None or self._made[current] != self._versions[view.storage]:
                with self._graph.inserting_before(node):
                    current = mark_refused(
                        self._graph,
                        operand,
                        f"{_in_words(node)} reads memory that {self._writers[view.storage]} changed in "
                        "place through a view of another shape. Use the operator that returns a new value "
                        "there.",
                    )
                self._views[current], self._made[current] = view, self._versions[view.storage]
            if current is not operand:
                node.replace_input_with(operand, current)
                self.modified = True

    def _drop_if_same(self, node: fx.Node) -> bool:
        """Drop an operator that returned a tensor which is there already."""
        view = self._views.get(node)
        same = self._current.get(view) if view is not None else None
        if view is None or same is None or self._made[same] != self._versions.get(view.storage, 0):
            return False
        node.replace_all_uses_with(same)
        self._graph.erase_node(node)
        self.modified = True
        return True

    def _write(self, node: fx.Node, target: fx.Node) -> None:
        view = self._views.get(target)
        where = _in_words(node)
        slices = self._sliced_from(target)
        reason = _functionalise(node)
        self.modified = True
        if view is None:
            return
        self._versions[view.storage] = self._versions.get(view.storage, 0) + 1
        self._writers[view.storage] = where
        result = node
        if view.storage in self._stored:
            reason = "the value belongs to the model's parameters or buffers, and a graph remembers nothing"
        if reason is not None:
            with self._graph.inserting_after(node):
                text = (
                    f"{where} changes a value in place: {reason}. Use the operator that returns a new value."
                )
                result = mark_refused(self._graph, target, text)
            node.replace_all_uses_with(result)
        self._set_current(view, result)
        if reason is None:
            self._write_through(result, slices)

    def _set_current(self, view: View, node: fx.Node) -> None:
        self._views[node] = view
        self._current[view] = node
        self._made[node] = self._versions[view.storage]

    def _sliced_from(self, target: fx.Node) -> list[tuple[fx.Node, fx.Node]]:
        """The slices of integers that a value is, innermost first, each with what holds its operand now."""
        found = []
        while nodes.aten_name(target) == "slice" and target in self._views:
            base = target.args[0]
            view = self._views.get(base)  # type: ignore[arg-type]
            if view is None or view.dtype.is_floating_point:
                break
            current = self._current.get(view)
            if current is None or self._made[current] != self._versions.get(view.storage, 0):
                break
            found.append((target, current))
            target = base  # type: ignore[assignment]
        return found

    def _write_through(self, result: fx.Node, slices: list[tuple[fx.Node, fx.Node]]) -> None:
        """Make new values of what was written to in some rows or columns."""
        for part, whole in slices:
            with self._graph.inserting_after(result):
                scatter = torch.ops.aten.slice_scatter.default
                result = self._graph.call_function(scatter, (whole, result, *part.args[1:]))
            result.meta = dict(whole.meta)
            nodes.copy_place(part, result)
            self._set_current(self._views[whole], result)


def _in_words(node: fx.Node) -> str:
    """The operator, its module, and its line in the user's code."""
    line = at_line(node)
    return f"{nodes.where(node)}{line}," if line else nodes.where(node)


def _written(node: fx.Node) -> fx.Node | None:
    """The operand that the operator writes into, as its schema says."""
    for position, argument in enumerate(node.target._schema.arguments):  # type: ignore[union-attr]
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = node.args[position] if position < len(node.args) else node.kwargs.get(argument.name)
            if isinstance(value, fx.Node):
                return value
    return None


def _functionalise(node: fx.Node) -> str | None:
    """Replace the operator by the one that returns its result; or say why there is none."""
    functional = functional_form(node)
    if functional is None:
        return "there is no form of the operator that returns a new value"
    if torch.Tag.inplace_view in node.target.tags:  # type: ignore[union-attr]
        return "it changes the shape of a value that has other names"
    names = [argument.name for argument in node.target._schema.arguments]  # type: ignore[union-attr]
    index = nodes.argument(node, "index") if "index" in names else None  # says where, and not what
    types = {
        operand.meta["val"].dtype
        for operand in node.all_input_nodes
        if operand is not index
        and isinstance(operand.meta.get("val"), torch.Tensor)
        and operand.meta["val"].dim() > 0
    } - {torch.bool}  # of a mask, which says where and not what
    if len(types) > 1:
        return f"its operands have several types ({', '.join(sorted(map(str, types)))})"
    node.target = functional
    return None
