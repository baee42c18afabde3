# SPDX-License-Identifier: Apache-2.0
"""What several passes ask about a node: which operator, where in the model, which sites, which weight.

While passes run, `node.meta` says where in the model the node was made ("module_path", "module_class"), the
shape that torch.export found for it ("val"), and why passes left it alone ("reasons"). The finished graph
has none of these.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from scn_fx.graph_nodes import argument, map_source, operands, operator_name, operator_spec
from scn_fx.operators.spec import Kind, MapRule, MapSide, Sites
from scn_fx.operators.table import OPERATORS

__all__ = [
    "ROWWISE",
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
    "read_as",
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


ROWWISE = frozenset(
    {
        "_unsafe_view", "add", "addmm", "alpha_dropout", "batch_norm", "cat", "chunk", "concat",
        "concatenate", "div", "dropout", "expand", "feature_alpha_dropout", "feature_dropout", "flatten",
        "flip", "hstack", "index_select", "linear", "matmul", "mean", "mm", "mul", "narrow", "neg",
        "permute", "repeat", "reshape", "rsub", "select", "slice", "split", "split_with_sizes", "squeeze",
        "stack", "sub", "sum", "t", "tensor_split", "transpose", "unbind", "unflatten", "unsqueeze", "view",
    }
)  # fmt: skip
"""aten operators that may give one row for each row, computed from its channels alone; see `channel_maps`."""

_KEEP_SITES = ROWWISE | {n for spec in OPERATORS.values() if spec.sites is Sites.SAME for n in spec.aten}
"""Those, and operators of features that are not lowered yet."""


def sites(node: fx.Node) -> fx.Node | None:
    """What identifies the sites of a feature value; None if the value is not one row per site.

    It is the node of the operator that makes the sites, or the placeholder of the indices. The sites of a
    placeholder of features are not written in the graph: the placeholder itself is returned and stands for
    them.
    """
    while True:
        spec = operator_spec(node)
        if spec is not None and spec.sites is Sites.MAP:
            return output_sites(operands(node, Kind.MAP)[0])
        if node.op == "placeholder":
            return node if isinstance(node.meta.get("val"), torch.Tensor) else None
        if spec is None and (aten_name(node) in _KEEP_SITES or node.target is operator.getitem):
            found = [each for each in map(sites, _operands(node)) if each is not None]
            return found[0] if found else None
        elif spec is not None and spec.sites is Sites.SAME:
            operand = operands(node, Kind.FEATURES)[0]
        else:
            return None
        if not isinstance(operand, fx.Node):
            return None
        node = operand


def _operands(node: fx.Node) -> list[fx.Node]:
    """The operands that are tensors, or lists of them."""
    return [each for each in node.all_input_nodes if not isinstance(each.meta.get("val"), int | torch.SymInt)]


def read_as(graph: fx.GraphModule, kind: Kind) -> set[Any]:
    """What the operators of a graph read as values of a kind; of inputs it says which they are."""
    return {value for node in graph.graph.nodes for value in operands(node, kind)}


def index_sites(node: object) -> fx.Node | None:
    """What identifies the sites of an index tensor: the node that makes them or its placeholder."""
    if not isinstance(node, fx.Node):
        return None
    if node.op == "placeholder":
        return node
    source = node.args[0] if node.target is operator.getitem else None
    spec = operator_spec(source)
    made = spec is not None and spec.gives[int(node.args[1])] is Kind.SITES  # type: ignore[arg-type]
    return source if made and isinstance(source, fx.Node) else None


def output_sites(kernel_map: object) -> fx.Node | None:
    """The sites that a kernel map writes."""
    (found,) = _side(kernel_map, lambda rule: rule.writes)
    return found


def input_sites(kernel_map: object) -> list[fx.Node | None]:
    """The sites that a kernel map reads: those of all features, or of each."""
    return _side(kernel_map, lambda rule: rule.reads)


def _side(kernel_map: object, side: Callable[[MapRule], MapSide]) -> list[fx.Node | None]:
    source = map_source(kernel_map)
    spec = operator_spec(source)
    if source is None or spec is None or spec.map is None:
        return [None]
    found = side(spec.map)
    if found is MapSide.NEW:
        return [source]
    if found is MapSide.PARTNER:
        return [output_sites(operands(source, Kind.MAP)[0])]
    return [index_sites(each) for each in operands(source, Kind.SITES)]
