# SPDX-License-Identifier: Apache-2.0
"""Contexts that a forward enters (`autocast`, `no_grad`, …), taken out of the exported program."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx

from scn_fx.errors import CaptureError
from scn_fx.passes.refused import mark_refused

__all__ = ["Inlining"]

_AUTOCAST = "wrap_with_autocast"
_GRADIENTS = "wrap_with_set_grad_enabled"


@dataclass
class Inlining:
    """Copies a program node by node, what runs inside contexts in the place of the contexts.

    torch.export writes what a context encloses as a subgraph with an operator around it. Gradients do not
    matter to a captured graph. An autocast that is off changes nothing; one that is on chooses precisions
    for devices of its type, which a graph leaves to its calibration.

    Attributes:
        graph: where the copies go.
        values: what stands for each node; the placeholders' are given, the others' are added.
        copy: makes the copy of one node.
        notes: sentences about contexts that were left out.
    """

    graph: fx.Graph
    values: dict[fx.Node, Any]
    copy: Callable[[fx.Node], fx.Node]
    notes: list[str] = field(default_factory=list)

    def run(self, program: fx.GraphModule) -> None:
        """Copy the whole program, its output included."""
        self._nodes(program)
        output = program.graph.output_node()
        self.values[output] = self.copy(output)

    def _nodes(self, program: fx.GraphModule) -> None:
        for node in program.graph.nodes:
            if node.op == "get_attr":
                self.values[node] = found = getattr(program, str(node.target), None)
                if not isinstance(found, fx.GraphModule):
                    raise CaptureError(
                        f"The forward uses a constant ({node.target}) that torch.export does not hand out. "
                        "Make it a buffer of the model (register_buffer)."
                    )
            elif node.op not in ("placeholder", "output"):
                self.values[node] = self._one(node)

    def _one(self, node: fx.Node) -> Any:
        if node.target is operator.getitem:
            source = self.values[node.args[0]]  # type: ignore[index]
            if isinstance(source, tuple | list):
                return source[node.args[1]]  # type: ignore[index]
        if isinstance(node.target, torch._ops.HigherOrderOperator):
            return self._context(node)
        return self.copy(node)

    def _context(self, node: fx.Node) -> Any:
        name = node.target.name()  # type: ignore[union-attr]
        if name == _GRADIENTS:
            return self._inside(node.args[1], node.args[2:])
        if name == _AUTOCAST:
            device, _, enabled, _, program, *operands = node.args
            result = self._inside(program, operands)
            return self._autocast(str(device), result, operands) if enabled else result
        reason = (
            f"The forward uses {name}, control flow that cannot be captured. Leave it out of the part of the "
            "model that is captured."
        )
        tensors = [self.values[arg] for arg in node.all_input_nodes if isinstance(self.values[arg], fx.Node)]
        results = node.meta.get("val")
        count = len(results) if isinstance(results, tuple | list) else 1
        return [mark_refused(self.graph, tensors[0], reason) for _ in range(count)]

    def _inside(self, program: Any, operands: Any) -> Any:
        """Copy a subgraph; returns what it returns."""
        subgraph: fx.GraphModule = self.values[program]
        placeholders = subgraph.graph.find_nodes(op="placeholder")
        self.values.update(
            (inner, self.values[outer]) for inner, outer in zip(placeholders, operands, strict=True)
        )
        self._nodes(subgraph)
        return fx.node.map_arg(subgraph.graph.output_node().args[0], self.values.__getitem__)

    def _autocast(self, device: str, result: Any, operands: Any) -> Any:
        found = {
            value.device.type
            for value in (operand.meta.get("val") for operand in operands if isinstance(operand, fx.Node))
            if isinstance(value, torch.Tensor)
        }
        if device not in found:
            self.notes.append(
                f"The forward computes under torch.autocast({device!r}); the graph is float32, and its "
                "precisions are chosen by quant.calibrate."
            )
            return result
        reason = (
            f"The forward computes under torch.autocast({device!r}), in lower precision; a graph is "
            "captured in float32, and its precisions are chosen by quant.calibrate. Switch the autocast off "
            "(enabled=False)."
        )
        return fx.node.map_arg(result, lambda value: mark_refused(self.graph, value, reason))
