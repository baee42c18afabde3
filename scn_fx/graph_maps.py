# SPDX-License-Identifier: Apache-2.0
"""Access to the kernel maps of a captured graph: geometry, rulebook and bound of their layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import fx

from scn_fx.geometry import ConvGeometry
from scn_fx.graph_nodes import argument, map_source, operands, operator_spec, replace_keywords
from scn_fx.operators.spec import Kind, MapRule

__all__ = ["KernelMap", "kernel_map_of", "map_arguments"]


@dataclass(frozen=True)
class KernelMap:
    """A node that makes a kernel map; a view, not a copy. All layers that read the map share it.

    Attributes:
        graph: the module that owns the node.
        node: the torch.fx node.
        name: the layer that made it first.
    """

    graph: fx.GraphModule
    node: fx.Node
    name: str

    def set(self, **kwargs: Any) -> None:
        """Set keyword arguments of the node, such as `output_bound`; every layer of the map sees them.

        Raises:
            AttributeError: the operator's schema has no keyword argument of that name.
        """
        replace_keywords(self.node, kwargs, f"The kernel map of {self.name}")
        self.graph.recompile()

    @property
    def geometry(self) -> ConvGeometry:
        """Which site reads which."""
        rule = self._rule
        if rule.geometry is None:
            return self._partner.geometry.inverted()
        return rule.geometry(**{number: _plain(argument(self.node, number)) for number in rule.numbers})

    @property
    def rulebook(self) -> str:
        """Its name in files; that of the partner for an inverse map."""
        if self._rule.geometry is None:
            return self._partner.rulebook
        return str(argument(self.node, "rulebook")) or self.name

    @property
    def output_bound(self) -> int:
        """Most output sites that it may have."""
        return int(argument(self.node, "output_bound"))

    @property
    def _rule(self) -> MapRule:
        spec = operator_spec(self.node)
        assert spec is not None and spec.map is not None
        return spec.map

    @property
    def _partner(self) -> KernelMap:
        return kernel_map_of(self.graph, operands(self.node, Kind.MAP)[0])


def kernel_map_of(graph: fx.GraphModule, value: fx.Node) -> KernelMap:
    """The map that a node's result is. AttributeError for a value that no map operator has made."""
    source = map_source(value)
    if source is None:
        raise AttributeError(f"{value} is no kernel map that an operator of the graph makes.")
    return KernelMap(graph, source, str(source.kwargs["name"]))


def map_arguments() -> frozenset[str]:
    """What is said of layers at their kernel maps alone."""
    from scn_fx.operators.table import OPERATORS

    found = {n for spec in OPERATORS.values() if spec.map is not None for n in spec.map.numbers}
    return frozenset(found | {"rulebook", "output_bound", "subm", "inverse"})


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list | tuple) else value
