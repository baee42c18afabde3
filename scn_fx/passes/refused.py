# SPDX-License-Identifier: Apache-2.0
"""A mark on a value that cannot be captured: an error if the chosen output depends on it, else dead code."""

from __future__ import annotations

from typing import Any, NoReturn

from torch import fx

from scn_fx.errors import CaptureError
from scn_fx.passes import nodes

__all__ = ["mark_refused", "refusal"]


def _refused(value: Any, reason: str) -> NoReturn:
    raise CaptureError(reason)


def mark_refused(graph: fx.Graph, value: fx.Node, reason: str) -> fx.Node:
    """Insert the mark at the graph's insertion point; whoever reads it needs what `reason` refuses."""
    marked = graph.call_function(_refused, (value, reason))
    marked.meta["val"] = value.meta.get("val")
    nodes.copy_place(value, marked)
    return marked


def refusal(node: fx.Node) -> str | None:
    """The reason that a node carries if it is a mark, or a stand-in for a layer that cannot be captured."""
    if node.target is _refused:
        return str(node.args[1])
    if nodes.operator_name(node) == "unsupported":
        return str(node.kwargs["reason"])
    return None
