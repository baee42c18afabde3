# SPDX-License-Identifier: Apache-2.0
"""Remove what computes nothing: size checks, copies, casts to the same type, dropout in evaluation mode."""

from __future__ import annotations

import torch
from torch import fx

from scn_fx.passes import nodes
from scn_fx.passes.base import GraphPass

__all__ = ["Clean"]

_CHECKS = frozenset(
    {
        "_assert_async",
        "_assert_scalar",
        "_assert_tensor_metadata",
        "sym_constrain_range",
        "sym_constrain_range_for_size",
    }
)
_COPIES = frozenset({"alias", "clone", "contiguous", "detach", "lift_fresh_copy", "lift_fresh"})
_CASTS = frozenset({"to", "_to_copy"})
_DROPOUTS = frozenset({"dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout"})


class Clean(GraphPass):
    """Drop nodes that return their input, and run-time checks of sizes.

    The checks would forbid frames that are valid (no voxel at all), and every operator checks its own
    inputs. A cast of the indices to int32 goes too: int32 is what the graph takes.
    """

    def call(self, graph: fx.GraphModule) -> bool:
        modified = False
        for node in list(graph.graph.nodes):
            if nodes.aten_name(node) in _CHECKS or node.target in (torch._check, torch._assert):
                graph.graph.erase_node(node)
                modified = True
            elif _returns_its_input(node):
                node.replace_all_uses_with(node.args[0])
                graph.graph.erase_node(node)
                modified = True
        return modified


def _returns_its_input(node: fx.Node) -> bool:
    name = nodes.aten_name(node)
    if name in _COPIES:
        return True
    if name in _DROPOUTS:
        return not nodes.argument(node, "train")
    if name == "add":  # sum([x, …]) starts from the number 0
        return isinstance(node.args[1], int | float) and node.args[1] == 0 and _same_type(node)
    if name in _CASTS:
        source = node.args[0]
        to_indices = (
            isinstance(source, fx.Node) and source.op == "placeholder" and _dtype(node) == torch.int32
        )
        return to_indices or _same_type(node)
    return False


def _same_type(node: fx.Node) -> bool:
    source = node.args[0]
    return isinstance(source, fx.Node) and _dtype(node) is not None and _dtype(node) is _dtype(source)


def _dtype(node: fx.Node) -> torch.dtype | None:
    return getattr(node.meta.get("val"), "dtype", None)
