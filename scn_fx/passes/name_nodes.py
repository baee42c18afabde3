# SPDX-License-Identifier: Apache-2.0
"""Name every layer by its module path."""

from __future__ import annotations

from collections.abc import Collection

from torch import fx

from scn_fx.graph import operator_spec
from scn_fx.graph_nodes import map_source, operands
from scn_fx.names import unique
from scn_fx.operators.spec import Kind
from scn_fx.passes import nodes
from scn_fx.passes.base import GraphPass

__all__ = ["NameNodes", "own_name"]


class NameNodes(GraphPass):
    """Give additions, activations, dense maps and layout operators a unique name from their module.

    A module that is one operator (`nn.ReLU`, `ToDense`) lends its own path; an operator in a forward is named
    `<module path>.add`, `.relu`, `.dense`. Layout operators are named after the dense map they rearrange,
    `dense.reshape`, or after their own module if that is another one. Convolutions have their names already.
    """

    def __init__(self, paths: Collection[str] = ()) -> None:
        super().__init__()
        self._paths = frozenset(paths)  # of all modules: a name that is made up must not be one of these

    def call(self, graph: fx.GraphModule) -> bool:
        found = {node: spec for node in graph.graph.nodes if (spec := operator_spec(node)) is not None}
        taken = {str(node.kwargs["name"]) for node, spec in found.items() if spec.layer and not spec.suffix}
        modified = False
        for node, spec in found.items():
            if not spec.suffix:
                continue
            stem = _layout_name(node) if spec.rearranges else own_name(node)
            own = nodes.module_path(node)
            name = unique(stem, taken | (self._paths - {own}))
            taken.add(name)
            node.kwargs = {**node.kwargs, "name": name}
            for value in operands(node, Kind.MAP):
                _name_map(value, name)
            modified = True
        return modified


def _name_map(value: fx.Node, name: str) -> None:
    """A map that was made for a layer without a name yet is called as the layer is."""
    source = map_source(value)
    if source is not None and not source.kwargs["name"]:
        source.kwargs = {**source.kwargs, "name": name, "rulebook": name}


def own_name(node: fx.Node) -> str:
    """Module path of an operator, with its suffix where it is not a module of its own."""
    path, spec = nodes.module_path(node), operator_spec(node)
    assert spec is not None
    if path and nodes.module_class(node) in spec.modules:
        return path
    return _join(path, spec.suffix)


def _layout_name(node: fx.Node) -> str:
    suffix = operator_spec(node).suffix  # type: ignore[union-attr]
    source = node.args[0]
    while isinstance(source, fx.Node) and (made := operator_spec(source)) is not None and made.rearranges:
        source = source.args[0]
    if isinstance(source, fx.Node) and nodes.module_path(source) == nodes.module_path(node):
        return _join(str(source.kwargs["name"]), suffix)
    return _join(nodes.module_path(node), suffix)


def _join(path: str, last: str) -> str:
    return f"{path}.{last}" if path else last
