# SPDX-License-Identifier: Apache-2.0
"""What several passes ask about a node: which operator, where in the model, which sites, which weight.

While passes run, `node.meta` says where in the model the node was made ("module_path", "module_class"), the
shape that torch.export found for it ("val"), and why passes left it alone ("reasons"). The finished graph
has none of these.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

from scn_fx.graph import operator_name

__all__ = [
    "add_reason",
    "argument",
    "aten_name",
    "attribute",
    "changed",
    "copy_place",
    "index_sites",
    "input_sites",
    "module_class",
    "module_path",
    "new_attribute",
    "output_sites",
    "reasons",
    "set_changed",
    "set_place",
    "sites",
    "where",
]

_PATH, _CLASS, _REASONS, _CHANGED = "module_path", "module_class", "reasons", "changed"


def set_place(node: fx.Node, path: str, class_name: str) -> None:
    """Record the module that made the node."""
    node.meta[_PATH], node.meta[_CLASS] = path, class_name


def copy_place(source: fx.Node, target: fx.Node) -> None:
    """Let `target`, which replaces `source`, report the same module."""
    for key in (_PATH, _CLASS, _REASONS):
        if key in source.meta:
            target.meta[key] = source.meta[key]


def set_changed(node: fx.Node, name: str) -> None:
    """Record that the model's forward gives the stored tensor `name` another value for its next call."""
    node.meta[_CHANGED] = name


def changed(node: fx.Node) -> str | None:
    """Name of the stored tensor that the forward changes, or None."""
    value = node.meta.get(_CHANGED)
    return None if value is None else str(value)


def module_path(node: fx.Node) -> str:
    """Path of the innermost module that made the node ("conv1.0.relu"); empty for the model itself."""
    return str(node.meta.get(_PATH, ""))


def module_class(node: fx.Node) -> str:
    """Class name of the innermost module that made the node."""
    return str(node.meta.get(_CLASS, ""))


def where(node: fx.Node) -> str:
    """The node in words, for messages: operator, module path and class."""
    if operator_name(node) is not None and "name" in node.kwargs and node.kwargs["name"]:
        return f"{operator_name(node)} {node.kwargs['name']!r}"
    path, cls = module_path(node), module_class(node)
    place = f"module {path!r}" if path else "the model's own forward"
    what = aten_name(node) or operator_name(node) or str(node.target)
    return f"{what} in {place}" + (f" ({cls})" if cls else "")


def aten_name(node: fx.Node) -> str | None:
    """Base name of the aten operator that the node calls ("relu_", "batch_norm"), or None."""
    if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
        return None
    namespace, _, name = node.target.name().partition("::")
    return name.partition(".")[0] if namespace == "aten" else None


def argument(node: fx.Node, name: str) -> Any:
    """Argument of an operator call by its name in the schema: positional, keyword or default."""
    if name in node.kwargs:
        return node.kwargs[name]
    for position, declared in enumerate(node.target._schema.arguments):  # type: ignore[union-attr]
        if declared.name == name:
            return node.args[position] if position < len(node.args) else declared.default_value
    raise KeyError(f"{node.target} has no argument {name!r}")


def attribute(graph: fx.GraphModule, node: Any) -> torch.Tensor | None:
    """Tensor of a `get_attr` node, or None for anything else and for one that the forward changes."""
    if not isinstance(node, fx.Node) or node.op != "get_attr" or changed(node) is not None:
        return None
    value: Any = graph
    for part in str(node.target).split("."):
        value = getattr(value, part)
    return value.detach() if isinstance(value, torch.Tensor) else None


def new_attribute(graph: fx.GraphModule, before: fx.Node, stem: str, value: torch.Tensor) -> fx.Node:
    """Store `value` under a fresh attribute name and insert a `get_attr` node for it before `before`."""
    name, count = stem, 0
    while hasattr(graph, name):
        count += 1
        name = f"{stem}_{count}"
    graph.register_parameter(name, torch.nn.Parameter(value, requires_grad=False))
    with graph.graph.inserting_before(before):
        return graph.graph.get_attr(name)


def add_reason(node: fx.Node, reason: str) -> None:
    """Remember why a rule did not apply at the node."""
    node.meta[_REASONS] = (*reasons(node), reason)


def reasons(node: fx.Node) -> tuple[str, ...]:
    """Reasons that passes gave for leaving the node as it is."""
    return tuple(node.meta.get(_REASONS, ()))


def sites(node: fx.Node) -> fx.Node | None:
    """What identifies the sites of a feature value; None if the value is not one row per site.

    It is the `conv_map` node that makes the sites, or the placeholder of the indices. The sites of a
    placeholder of features are not written in the graph: the placeholder itself is returned and stands for
    them.
    """
    while True:
        kind = operator_name(node)
        if kind == "convolution":
            return output_sites(node.args[3])
        if node.op == "placeholder":
            return node
        if kind not in ("add", "relu") and aten_name(node) not in ("relu", "add", "batch_norm"):
            return None
        operand = node.args[0]
        if not isinstance(operand, fx.Node):
            return None
        node = operand


def index_sites(node: object) -> fx.Node | None:
    """What identifies the sites of an index tensor: its `conv_map` node or its placeholder."""
    if not isinstance(node, fx.Node):
        return None
    if node.op == "placeholder":
        return node
    source = _source(node)
    return source if source is not None and node.args[1] == 0 else None


def output_sites(kernel_map: object) -> fx.Node | None:
    """The sites that a kernel map writes."""
    if not isinstance(kernel_map, fx.Node):
        return None
    kind = operator_name(kernel_map)
    if kind == "subm_map":
        return index_sites(kernel_map.args[0])
    if kind == "inverse_map":
        return index_sites(kernel_map.args[1])
    return _source(kernel_map)


def input_sites(kernel_map: object) -> fx.Node | None:
    """The sites that a kernel map reads."""
    if not isinstance(kernel_map, fx.Node):
        return None
    kind = operator_name(kernel_map)
    if kind == "subm_map":
        return index_sites(kernel_map.args[0])
    if kind == "inverse_map":
        return output_sites(kernel_map.args[0])
    source = _source(kernel_map)
    return None if source is None else index_sites(source.args[0])


def _source(node: fx.Node) -> fx.Node | None:
    """The conv_map node that `node` is an item of."""
    if node.target is operator.getitem and isinstance(node.args[0], fx.Node):
        return node.args[0] if operator_name(node.args[0]) == "conv_map" else None
    return None
