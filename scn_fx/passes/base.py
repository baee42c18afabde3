# SPDX-License-Identifier: Apache-2.0
"""What every pass over a captured graph has in common: preconditions, the work, refusals."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from torch import fx

from scn_fx.passes import nodes

__all__ = ["GraphPass", "PassResult", "run_passes"]

_log = logging.getLogger("scn_fx.passes")


@dataclass(frozen=True)
class PassResult:
    """What one pass did.

    Attributes:
        modified: whether the graph changed.
        notes: reasons of the places where the pass did not apply, one sentence each.
    """

    modified: bool
    notes: tuple[str, ...] = ()


class GraphPass(ABC):
    """One rewrite of a graph; a small class in a file of its own, with one rule or a few of a kind.

    `requires` raises `CaptureError` for a graph that the rule cannot start from. A place where the rule does
    not apply is not an error: the pass calls `refuse` there and goes on. Instances hold no state beyond one
    call.
    """

    def __init__(self) -> None:
        self._notes: list[str] = []

    @property
    def name(self) -> str:
        """Name of the pass in logs and notes."""
        return type(self).__name__

    def requires(self, graph: fx.GraphModule) -> None:  # noqa: B027 - optional
        """Raise `CaptureError` if the pass cannot work on this graph."""

    @abstractmethod
    def call(self, graph: fx.GraphModule) -> bool:
        """Rewrite the graph in place; return whether it changed."""

    def refuse(self, node: fx.Node, reason: str) -> None:
        """Note that the rule does not apply at `node`, and why; errors about that node repeat the reason."""
        self.note(node, reason)
        nodes.add_reason(node, reason)

    def note(self, node: fx.Node, text: str) -> None:
        """Note something about `node` for whoever reads the notes of the graph."""
        note = f"{self.name}: {nodes.where(node)}: {text}"
        self._notes.append(note)
        _log.info(note)

    def __call__(self, graph: fx.GraphModule) -> PassResult:
        """Check, then rewrite."""
        self._notes = []
        self.requires(graph)
        modified = self.call(graph)
        if modified:
            graph.graph.lint()
        _log.debug("%s: %s", self.name, "modified" if modified else "unchanged")
        return PassResult(modified, tuple(self._notes))


def run_passes(graph: fx.GraphModule, passes: Sequence[GraphPass]) -> tuple[str, ...]:
    """Run the passes in order on the graph (in place); returns all their notes."""
    notes: list[str] = []
    for one in passes:
        notes += one(graph).notes
    return tuple(notes)
