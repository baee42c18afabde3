# SPDX-License-Identifier: Apache-2.0
"""Name every layer by its module path."""

from __future__ import annotations

from collections.abc import Collection

from torch import fx

from scn_fx.graph import operator_name
from scn_fx.passes import nodes
from scn_fx.passes.base import GraphPass

__all__ = ["NameNodes", "activation_name"]

_SUFFIX = {"add": "add", "relu": "relu", "scatter_dense": "dense"}
_OWN_MODULE = {"relu": ("ReLU", "SparseReLU"), "scatter_dense": ("ToDense",)}


class NameNodes(GraphPass):
    """Give additions, ReLUs, dense maps and layout operators a unique name from the module that made them.

    A module that is one operator (`nn.ReLU`, `ToDense`) lends its own path; an operator in a forward is named
    `<module path>.add`, `.relu`, `.dense`. Layout operators are named after the dense map they rearrange,
    `dense.reshape`, or after their own module if that is another one. Convolutions have their names already.
    """

    def __init__(self, paths: Collection[str] = ()) -> None:
        super().__init__()
        self._paths = frozenset(paths)  # of all modules: a name that is made up must not be one of these

    def call(self, graph: fx.GraphModule) -> bool:
        taken: set[str] = set()
        for node in graph.graph.nodes:
            if operator_name(node) == "convolution":
                taken.add(node.kwargs["name"])
        modified = False
        for node in graph.graph.nodes:
            kind = operator_name(node)
            if kind in _SUFFIX:
                stem = _own_name(node, str(kind))
            elif kind in ("reshape", "transpose"):
                stem = _layout_name(node, str(kind))
            else:
                continue
            own = nodes.module_path(node)
            name = unique(stem, taken | (self._paths - {own}))
            taken.add(name)
            node.kwargs = {**node.kwargs, "name": name}
            modified = True
        return modified


def unique(stem: str, taken: set[str]) -> str:
    """`stem`, or `stem_1`, `stem_2`, … where that is taken."""
    name, count = stem, 0
    while name in taken:
        count += 1
        name = f"{stem}_{count}"
    return name


def activation_name(relu: fx.Node) -> str:
    """Module path of a ReLU."""
    return _own_name(relu, "relu")


def _own_name(node: fx.Node, kind: str) -> str:
    path = nodes.module_path(node)
    if path and nodes.module_class(node) in _OWN_MODULE.get(kind, ()):
        return path
    return _join(path, _SUFFIX[kind])


def _layout_name(node: fx.Node, kind: str) -> str:
    source = node.args[0]
    while isinstance(source, fx.Node) and operator_name(source) != "scatter_dense":
        source = source.args[0]
    if isinstance(source, fx.Node) and nodes.module_path(source) == nodes.module_path(node):
        return _join(str(source.kwargs["name"]), kind)
    return _join(nodes.module_path(node), kind)


def _join(path: str, last: str) -> str:
    return f"{path}.{last}" if path else last
