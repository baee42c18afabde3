# SPDX-License-Identifier: Apache-2.0
"""Let values that the forward computes from its arguments be inputs of the graph."""

from __future__ import annotations

from torch import fx

from scn_fx.names import unique
from scn_fx.passes import nodes
from scn_fx.passes.base import GraphPass

__all__ = ["EntryInputs", "ancestors"]


class EntryInputs(GraphPass):
    """A value that is marked as an entry becomes a placeholder; what led to it, and who fed that, goes.

    Features that a module made come first, indices that the forward put together last, and arguments that are
    still read stay between them in their order. An argument that is passed on as it came, or cast, stays what
    it is, and so does a value that a layer has a part in.
    """

    def call(self, graph: fx.GraphModule) -> bool:
        marks = [node for node in graph.graph.nodes if nodes.operator_name(node) == "entry"]
        made = [placeholder for mark in marks if (placeholder := self._enter(graph, mark)) is not None]
        for mark in marks:
            graph.graph.erase_node(mark)
        if made:
            _drop_dead(graph)
        return bool(marks)

    def _enter(self, graph: fx.GraphModule, mark: fx.Node) -> fx.Node | None:
        source = mark.args[0]
        assert isinstance(source, fx.Node)
        if source.op == "placeholder" or not mark.users or _of_layers(source):
            mark.replace_all_uses_with(source)
            return None
        inputs = graph.graph.find_nodes(op="placeholder")
        name = unique(str(mark.kwargs["name"]), {str(node.target) for node in inputs if _kept(node, source)})
        integer = not mark.meta["val"].is_floating_point()
        place = (
            graph.graph.inserting_after(inputs[-1]) if integer else graph.graph.inserting_before(inputs[0])
        )
        with place:
            placeholder = graph.graph.placeholder(name)
        placeholder.meta["val"] = mark.meta["val"]
        mark.replace_all_uses_with(placeholder)
        what = "indices" if integer else "features"
        self._notes.append(
            f"The graph takes the {what} {placeholder.name!r} that {mark.kwargs['after']} makes, and not "
            "what they are made of: give frames as (features, indices)."
        )
        return placeholder


def _kept(node: fx.Node, source: fx.Node) -> bool:
    """Whether an input may keep its name: others than those that the source alone is made of."""
    return bool(node.users) and node not in ancestors(source)


def ancestors(node: fx.Node) -> set[fx.Node]:
    """The node and all that it is computed from."""
    found, pending = {node}, [node]
    while pending:
        for each in pending.pop().all_input_nodes:
            if each not in found:
                found.add(each)
                pending.append(each)
    return found


def _of_layers(source: fx.Node) -> bool:
    return any(nodes.operator_spec(node) is not None for node in ancestors(source))


def _drop_dead(graph: fx.GraphModule) -> None:
    """Remove what nobody reads any more, inputs too: the frames are other ones now."""
    for node in reversed(graph.graph.nodes):
        if node.op != "output" and not node.users:
            graph.graph.erase_node(node)
