# SPDX-License-Identifier: Apache-2.0
"""Take out the marks on what modules returned, and remember for messages where nodes come from."""

from __future__ import annotations

from torch import fx

from scn_fx.passes import nodes
from scn_fx.passes.base import GraphPass

__all__ = ["ModuleMarks", "at_line", "module_before", "set_line"]

_BEFORE, _LINE = "module_before", "line"


class ModuleMarks(GraphPass):
    """Each mark gives way to the value that it marks.

    Every node keeps the path of the module whose value comes last before it, among those that it is computed
    from if there are any: where the node turns out to be one that no graph can hold, the captured part can
    end with that value (`module_before`).
    """

    def call(self, graph: fx.GraphModule) -> bool:
        modified = False
        found: dict[fx.Node, tuple[int, str]] = {}  # the last value of a module before a node, and its place
        returned: dict[fx.Node, tuple[int, str]] = {}
        for node in list(graph.graph.nodes):
            if nodes.operator_name(node) == "returned":
                value = node.args[0]
                assert isinstance(value, fx.Node)
                if value.op == "call_function":
                    returned[value] = len(returned), str(node.kwargs["path"])
                node.replace_all_uses_with(value)
                graph.graph.erase_node(node)
                modified = True
        latest: tuple[int, str] | None = None
        for node in graph.graph.nodes:
            before = [returned.get(each) or found.get(each) for each in node.all_input_nodes]
            if any(before):
                found[node] = max(each for each in before if each)
            last = found.get(node, latest)
            if last is not None:
                node.meta[_BEFORE] = last[1]
            latest = returned.get(node, latest)
        return modified


def module_before(node: fx.Node) -> str | None:
    """Which `output=` is the last value of a module before the node, as code; None without one."""
    path = node.meta.get(_BEFORE)
    return None if path is None else str(path)


def set_line(node: fx.Node, text: str) -> None:
    """Record the line of the user's code that made the node: file, number, text."""
    if text:
        node.meta[_LINE] = text


def at_line(node: fx.Node) -> str:
    """That line for a message, ", at file.py:12 (y = x * 2)"; empty where it is not known."""
    line = node.meta.get(_LINE)
    return "" if line is None else f", at {line}"
