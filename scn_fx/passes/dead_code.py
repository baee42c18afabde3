# SPDX-License-Identifier: Apache-2.0
"""Remove what the chosen output does not need."""

from __future__ import annotations

from torch import fx

from scn_fx.passes.base import GraphPass

__all__ = ["DeadCode"]


class DeadCode(GraphPass):
    """Erase nodes without readers, last first. Placeholders stay: they are the graph's signature."""

    def call(self, graph: fx.GraphModule) -> bool:
        modified = False
        for node in reversed(graph.graph.nodes):
            if node.op not in ("placeholder", "output") and not node.users:
                graph.graph.erase_node(node)
                modified = True
        return modified
