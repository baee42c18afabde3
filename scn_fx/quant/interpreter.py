# SPDX-License-Identifier: Apache-2.0
"""Runs a captured graph in float32, whatever its precisions, and shows every value to an observer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.fx import GraphModule, Interpreter, Node

from scn_fx.errors import NonFiniteError
from scn_fx.graph import layers

__all__ = ["FloatInterpreter"]


class FloatInterpreter(Interpreter):
    """torch.fx Interpreter of the float reference: convolutions and Adds run with precision "fp32".

    `observe(node, value)` is called for each float tensor that a node yields, once it is known to be finite;
    `observe_add(node, a, b)` for each Add and `observe_convolution(node, features, kernel_map)` for each
    convolution before it runs; `passed(node)` after each node. The graph's nodes are not changed. Raises
    NonFiniteError naming the layer whose result holds NaN or infinity.
    """

    def __init__(
        self,
        graph: GraphModule,
        observe: Callable[[Node, torch.Tensor], None],
        *,
        observe_add: Callable[[Node, torch.Tensor, torch.Tensor], None] | None = None,
        observe_convolution: Callable[[Node, torch.Tensor, torch.Tensor], None] | None = None,
        passed: Callable[[Node], None] | None = None,
    ):
        super().__init__(graph)
        # Otherwise torch.fx appends the node's text to the arguments of our own errors.
        self.extra_traceback = False
        self._observe = observe
        self._passed = passed
        found = layers(graph)
        self._names = {layer.node: layer.name for layer in found}
        self._observers: dict[Node, tuple[Callable[..., None], tuple[Node, ...]]] = {}
        for layer in found:
            if layer.spec.adds and observe_add is not None:
                self._observers[layer.node] = observe_add, layer.inputs
            elif layer.spec.weighted and observe_convolution is not None:
                operands = layer.inputs[0], layer.argument("kernel_map")
                self._observers[layer.node] = observe_convolution, operands

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call an operator, in float32 if it has a precision."""
        if isinstance(target, torch._ops.OpOverload) and any(
            argument.name == "precision" for argument in target._schema.arguments
        ):
            kwargs = {**kwargs, "precision": "fp32", "output_precision": "fp32"}
        return super().call_function(target, args, kwargs)

    def run_node(self, n: Node) -> Any:
        """Run one node, check its value and show it to the observer."""
        if n in self._observers:
            observer, operands = self._observers[n]
            observer(n, *(self.env[operand] for operand in operands))
        value = super().run_node(n)
        computed = n.op in ("placeholder", "call_function") and isinstance(value, torch.Tensor)
        if computed and value.is_floating_point() and value.numel():
            self._check_finite(n, value)
            self._observe(n, value)
        if self._passed is not None:
            self._passed(n)
        return value

    def _check_finite(self, n: Node, value: torch.Tensor) -> None:
        # NaN propagates, and one pass finds both infinities; one transfer fetches both from a GPU.
        extremes = torch.stack(torch.aminmax(value))
        if bool(extremes.isfinite().all()):
            return
        bad = int((~value.isfinite()).sum())
        where = f"the result of {self._names[n]}" if n in self._names else f"the graph input {n.name}"
        raise NonFiniteError(
            f"{where} holds {bad} NaN or infinite values of {value.numel()}. Ranges need finite values: "
            "check the frame for NaN points, and the model for weights that make float32 overflow."
        )
