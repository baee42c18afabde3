# SPDX-License-Identifier: Apache-2.0
"""Remove run-time checks of sizes and types."""

from __future__ import annotations

import torch
from torch import fx

from scn_fx.passes import nodes
from scn_fx.passes.base import GraphPass

__all__ = ["DropChecks"]

_CHECKS = frozenset(
    {
        "_assert_async",
        "_assert_scalar",
        "_assert_tensor_metadata",
        "sym_constrain_range",
        "sym_constrain_range_for_size",
    }
)


class DropChecks(GraphPass):
    """Drop what checks a tensor and computes nothing.

    The checks would forbid frames that are valid (no voxel at all), and every operator checks its own
    inputs.
    """

    def call(self, graph: fx.GraphModule) -> bool:
        modified = False
        for node in list(graph.graph.nodes):
            if nodes.aten_name(node) in _CHECKS or node.target in (torch._check, torch._assert):
                graph.graph.erase_node(node)
                modified = True
        return modified
