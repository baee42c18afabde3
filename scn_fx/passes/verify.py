# SPDX-License-Identifier: Apache-2.0
"""Check that a graph is what later stages rely on."""

from __future__ import annotations

import operator

from torch import fx

from scn_fx.errors import CaptureError
from scn_fx.graph import KINDS, operator_name
from scn_fx.passes import nodes
from scn_fx.passes.base import GraphPass

__all__ = ["Verify"]

_MAPS = ("subm_map", "conv_map", "inverse_map")
_DENSE = ("scatter_dense", "reshape", "transpose")

_ADVICE = {
    "batch_norm": "A BatchNorm is supported where it alone reads a convolution that has no activation.",
    "linear": "On sites, a Linear layer is a SubMConv3d with kernel 1; use that, or leave the layer outside.",
    "addmm": "On sites, a Linear layer is a SubMConv3d with kernel 1; use that, or leave the layer outside.",
    "cat": "Concatenation of sparse tensors is not supported yet; capture up to it and choose an earlier "
    "output.",
    "add": "Only the sum of two feature tensors on the same sites is supported.",
}
_ACTIVATIONS = (
    "sigmoid",
    "tanh",
    "gelu",
    "silu",
    "leaky_relu",
    "elu",
    "hardtanh",
    "hardswish",
    "relu6",
    "mish",
)
_GENERAL = "Capture the sparse encoder alone, or choose an earlier output with scn_fx.capture(…, output=…)."


class Verify(GraphPass):
    """Only operators of the dialect, features that belong to their sites, unique names, one output.

    Changes nothing. Which sites a value has follows from the graph, so a feature tensor combined with another
    level's sites is found here, before a frame is run.
    """

    def call(self, graph: fx.GraphModule) -> bool:
        for node in graph.graph.nodes:
            _check_operator(node)
        _check_sites(graph)
        _check_names(graph)
        _check_output(graph)
        return False


def _check_operator(node: fx.Node) -> None:
    if node.op in ("placeholder", "get_attr", "output"):
        return
    kind = operator_name(node)
    if kind in KINDS or kind in _MAPS or node.target is operator.getitem:
        return
    name = nodes.aten_name(node) or ""
    advice = _ADVICE.get(name, _GENERAL)
    if name.rstrip("_") in _ACTIVATIONS:
        advice = "ReLU is the only activation of a sparse layer; train with ReLU, or leave the layer outside."
    why = "".join(f" ({reason})" for reason in nodes.reasons(node))
    raise CaptureError(f"{nodes.where(node)} is not supported{why}. {advice}")


def _check_sites(graph: fx.GraphModule) -> None:
    """Every operand must be on the sites that its operator expects."""
    known: dict[fx.Node, fx.Node] = {}  # placeholder of features → its sites, from the first reader
    of_indices = {index for node in graph.graph.nodes for index in _index_operands(node)}

    def sites(value: object) -> fx.Node | None:
        found = nodes.sites(value) if isinstance(value, fx.Node) else None
        return known.get(found, found) if found is not None else None

    for node in graph.graph.nodes:
        kind = operator_name(node)
        if kind == "convolution":
            expected = nodes.input_sites(node.args[3])
        elif kind == "scatter_dense":
            expected = nodes.index_sites(node.args[1])
        elif kind == "add":
            expected = sites(node.args[1])
        else:
            continue
        found = sites(node.args[0])
        if (
            found is not None
            and expected is not None
            and found.op == "placeholder"
            and found not in of_indices
        ):
            known[found] = found = expected
        if found is None or expected is None or found is not expected:
            raise CaptureError(
                f"{nodes.where(node)} combines values of different sites: its features belong to "
                f"{_sites_text(found)}, the other side to {_sites_text(expected)}. "
                "Features and indices of one sparse tensor must stay together, and only tensors on the same "
                "sites can be added."
            )


def _index_operands(node: fx.Node) -> list[object]:
    """Operands of the node that are index tensors."""
    kind = operator_name(node)
    if kind in ("subm_map", "conv_map"):
        return [node.args[0]]
    return [node.args[1]] if kind in ("inverse_map", "scatter_dense") else []


def _sites_text(found: fx.Node | None) -> str:
    if found is None:
        return "no sites known to the graph"
    if found.op == "placeholder":
        return f"the input {found.name!r}"
    return f"the output sites of layer {found.kwargs['name']!r}"


def _check_names(graph: fx.GraphModule) -> None:
    seen: set[str] = set()
    for node in graph.graph.nodes:
        if operator_name(node) not in KINDS:
            continue
        name = str(node.kwargs["name"])
        if not name or name in seen:
            raise CaptureError(f"Layer names must be unique and not empty, got {name!r} twice or empty.")
        seen.add(name)


def _check_output(graph: fx.GraphModule) -> None:
    value = next(iter(reversed(graph.graph.nodes))).args[0]
    if isinstance(value, fx.Node):
        if operator_name(value) in _DENSE:
            return
    elif isinstance(value, tuple | list) and len(value) == 2:
        features, indices = value
        if isinstance(features, fx.Node) and nodes.sites(features) is not None:
            of_features, of_indices = nodes.sites(features), nodes.index_sites(indices)
            if of_indices is not None and (of_features is of_indices or features.op == "placeholder"):
                return
    raise CaptureError(
        f"The output must be a dense map or a sparse tensor (features, indices) that the captured layers "
        f"compute, got {value}. Choose another output=."
    )
