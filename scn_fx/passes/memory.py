# SPDX-License-Identifier: Apache-2.0
"""Which values of a traced program are one tensor in memory, found by running it.

Whether `dropout`, `to`, `contiguous`, `reshape` or an operator of tomorrow returns its input, a view of it
or a copy depends on its arguments; torch's tracing modes answer for some of them otherwise than torch itself
does (dropout in evaluation is a copy there). So the aten operators of the program are run by torch itself, on
the meta device: tensors with shapes and storages, but no data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

__all__ = ["Memory", "View", "functional_form"]

# Sizes that are only known when a frame comes: large, and no neighbours of a size that a model would name.
_FIRST_SIZE, _STEP = 1_000_003, 7_919


@dataclass(frozen=True)
class View:
    """How a value lies in memory. Equal views are one tensor; views of one storage share its data.

    Attributes:
        storage: number of the storage in the program.
        dtype, shape, stride, offset: how the storage is read.
    """

    storage: int
    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int


class Memory:
    """Where the values of a program lie.

    Operators of other namespaces never return their input (their schemas say so); an aten operator that
    cannot run without data (`nonzero`, `unique`) makes a new tensor, unless its schema says that it writes.

    Attributes:
        views: the view of every node that is one tensor.
        idle: operators that could write and do not, such as `dropout_` in evaluation.
    """

    def __init__(self, graph: fx.GraphModule) -> None:
        self.views: dict[fx.Node, View] = {}
        self.idle: set[fx.Node] = set()
        self._graph = graph
        self._values: dict[fx.Node, Any] = {}
        self._sizes: dict[str, int] = {}
        self._storages: dict[int, int] = {}
        self._stored: dict[int, torch.Tensor] = {}  # by the address of what the model stores
        self._kept: list[torch.Tensor] = []  # so that no address is used twice
        with torch.no_grad():
            for node in graph.graph.nodes:
                self._values[node] = value = self._value(node)
                self._kept += [item for item in _flat(value) if isinstance(item, torch.Tensor)]
                if isinstance(value, torch.Tensor):
                    self.views[node] = self._view(value)

    def _view(self, value: torch.Tensor) -> View:
        key = value.untyped_storage()._cdata
        storage = self._storages.setdefault(key, len(self._storages))
        return View(storage, value.dtype, tuple(value.shape), value.stride(), int(value.storage_offset()))

    def _value(self, node: fx.Node) -> Any:
        if node.op == "get_attr":
            return self._attribute(node)
        if node.op == "call_function":
            operands: Any = fx.node.map_arg((node.args, node.kwargs), self._values.__getitem__)
            args, kwargs = (_on_meta(given) for given in operands)
            if not _is_operator(node) or node.target.namespace == "aten":  # type: ignore[union-attr]
                try:
                    return self._called(node, args, kwargs)
                except Exception:  # data is missing, or a size does not fit: of what kinds, only torch knows
                    if _writes(node) and isinstance(args[0], torch.Tensor):
                        return args[0]
        return self._fresh(node.meta.get("val"))

    def _called(self, node: fx.Node, args: Any, kwargs: Any) -> Any:
        if _writes(node):
            if node.target is torch.ops.aten.detach_.default:  # without gradients it does nothing
                self.idle.add(node)
                return args[0]
            functional = functional_form(node)
            if functional is not None and functional(*args, **kwargs) is args[0]:
                self.idle.add(node)
            # On another Python object: some operators change the shape of the one they get.
            alias = args[0].as_strided(args[0].shape, args[0].stride(), args[0].storage_offset())
            result = node.target(alias, *args[1:], **kwargs)  # type: ignore[operator]
            # squeeze_, resize_ and their like write no data, and may leave the shape as it was.
            if torch.Tag.inplace_view in node.target.tags and self._view(result) == self._view(args[0]):  # type: ignore[union-attr]
                self.idle.add(node)
            return result
        return node.target(*args, **kwargs)  # type: ignore[operator]

    def _attribute(self, node: fx.Node) -> Any:
        value: Any = self._graph
        for part in str(node.target).split("."):
            value = getattr(value, part)
        if not isinstance(value, torch.Tensor):
            return None
        key = value.untyped_storage().data_ptr() or id(value)
        if key not in self._stored:  # parameters may share memory
            size = value.untyped_storage().nbytes()
            self._stored[key] = torch.empty(size, dtype=torch.uint8, device="meta")
        base = torch.empty(0, dtype=value.dtype, device="meta")
        return base.set_(
            self._stored[key].untyped_storage(), value.storage_offset(), value.shape, value.stride()
        )

    def _fresh(self, value: Any) -> Any:
        """New meta tensors like a traced value, its symbols replaced by numbers."""
        if isinstance(value, torch.Tensor):
            shape = [self._number(size) for size in value.shape]
            return torch.empty(shape, dtype=value.dtype, device="meta")
        if isinstance(value, tuple | list):
            return [self._fresh(item) for item in value]
        return self._number(value) if isinstance(value, torch.SymInt) else value

    def _number(self, size: Any) -> int:
        if isinstance(size, int):
            return size
        expression = size.node.expr
        for symbol in sorted(expression.free_symbols, key=str):
            self._sizes.setdefault(str(symbol), _FIRST_SIZE + _STEP * len(self._sizes))
        return max(int(expression.subs({s: self._sizes[str(s)] for s in expression.free_symbols})), 0)


def functional_form(node: fx.Node) -> torch._ops.OpOverload | None:
    """The aten operator that returns what `node` writes into its first operand, or None."""
    name, _, _ = node.target.name().partition("::")[2].partition(".")  # type: ignore[union-attr]
    if not name.endswith("_") or name.endswith("__"):
        return None
    packet = getattr(torch.ops.aten, name.removesuffix("_"), None)
    found: torch._ops.OpOverload | None = getattr(packet, node.target._overloadname, None)  # type: ignore[union-attr]
    if found is None:  # floor_divide_.Tensor has one of another name
        found = getattr(packet, "default", None)
        return found if found is not None and _names(found) == _names(node.target) else None
    return found


def _names(target: Any) -> list[str]:
    return [argument.name for argument in target._schema.arguments]


def _is_operator(node: fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload)


def _on_meta(arguments: Any) -> Any:
    """Arguments with every device replaced: a graph lives on one, so that a move between devices is none."""
    if isinstance(arguments, dict):
        return {name: _on_meta(value) for name, value in arguments.items()}
    if isinstance(arguments, tuple | list):
        return type(arguments)(_on_meta(value) for value in arguments)
    return torch.device("meta") if isinstance(arguments, torch.device) else arguments


def _writes(node: fx.Node) -> bool:
    """Whether the schema says that the operator writes into its first operand, which is then its result."""
    if not _is_operator(node):
        return False
    first = node.target._schema.arguments[0]  # type: ignore[union-attr]
    return first.alias_info is not None and first.alias_info.is_write


def _flat(value: Any) -> list[Any]:
    return [part for item in value for part in _flat(item)] if isinstance(value, tuple | list) else [value]
