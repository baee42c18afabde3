# SPDX-License-Identifier: Apache-2.0
"""The last step: a fresh GraphModule with nothing in it but what the captured graph promises."""

from __future__ import annotations

import operator
import re
import warnings

import torch
from torch import fx, nn

from scn_fx.errors import CaptureError, CaptureWarning
from scn_fx.graph import NAMESPACE, CapturedGraph, metadata, new_metadata, operator_spec
from scn_fx.input_grid import input_shape
from scn_fx.names import unique
from scn_fx.operators.spec import Kind
from scn_fx.passes import nodes

__all__ = ["finished", "warn_of_axes"]


def finished(graph: fx.GraphModule, axes: str, notes: tuple[str, ...]) -> fx.GraphModule:
    """Copy a verified graph: nodes and parameters named after their layers, no traces of how it was made."""
    features, indices = _inputs(graph)
    unread = [node.name for node in graph.graph.find_nodes(op="placeholder") if not node.users]
    if unread:
        warnings.warn(
            f"The captured part of the model does not read {', '.join(unread)} of its args, but the graph "
            "takes them, in their order. Leave them out of args if they are not meant (a dict that the "
            "model has run on holds its results too).",
            CaptureWarning,
            stacklevel=4,
        )
    root = nn.Module()
    made = fx.Graph()
    values: dict[fx.Node, fx.Node] = {}
    for node in graph.graph.nodes:
        if node.op == "get_attr":
            continue  # copied beside its layer, under the layer's name
        spec = operator_spec(node)
        if spec is not None and spec.weighted:
            _copy_parameters(graph, node, root, made, values)
        copy = made.node_copy(node, values.__getitem__)
        copy.meta = {}
        copy._rename(_readable(node))
        values[node] = copy
    made.lint()
    result = CapturedGraph(root, made, class_name="CapturedGraph")
    ndim = int(indices.meta["val"].shape[1]) - 1
    made_of = new_metadata(axes, features.name, indices.name, ndim)
    result.meta[NAMESPACE] = {**made_of, "notes": list(notes)}
    result.eval()
    return result


def warn_of_axes(graph: fx.GraphModule) -> None:
    """Warn where a grid in the order z, y, x looks like x, y, z: the last axis is much the smallest."""
    shape = input_shape(graph)
    if metadata(graph)["axes"] == "zyx" and len(shape) == 3 and 4 * shape[2] <= min(shape[:2]):
        warnings.warn(
            f"The grid of the input is {' x '.join(map(str, shape))}: its smallest axis comes last, as where "
            "the index columns are in the order x, y, z (BEVFusion's encoder). If they are, capture with "
            'axes="xyz", which the graph and its files record; frames keep the order of the model.',
            CaptureWarning,
            stacklevel=3,
        )


def _copy_parameters(
    graph: fx.GraphModule,
    conv: fx.Node,
    root: nn.Module,
    made: fx.Graph,
    values: dict[fx.Node, fx.Node],
) -> None:
    """Store weight and bias of a convolution as float32 parameters named after it."""
    spec = operator_spec(conv)
    assert spec is not None
    for what in (operand.name for operand in spec.operands if operand.kind is Kind.PARAMETER):
        source = nodes.argument(conv, what)
        if source is None:
            continue
        value = nodes.attribute(graph, source)
        if value is None or not isinstance(source, fx.Node):
            raise CaptureError(
                f"{nodes.where(conv)}: its {what} is computed from the frame. Store it as a parameter of "
                "the model."
            )
        # Paths that differ in punctuation alone ("conv1.2", "conv1_2") are different layers.
        name = unique(_identifier(f"{conv.kwargs['name']}_{what}"), set(root._parameters))
        value = value.to(torch.float32).contiguous().clone()
        root.register_parameter(name, nn.Parameter(value, requires_grad=False))
        values[source] = made.get_attr(name)


def _readable(node: fx.Node) -> str:
    """Name of a node in the finished graph, from its layer's: conv2_0, conv2_0_map, conv2_0_sites, …"""
    source = node.args[0] if node.target is operator.getitem else None
    if isinstance(source, fx.Node):
        stem = str(source.kwargs["name"]) + ("_sites" if node.args[1] == 0 else "_map")
    elif "name" in node.kwargs:
        spec = operator_spec(node)
        stem = str(node.kwargs["name"]) + ("" if spec is None else spec.node_suffix)
    else:
        return node.name
    return _identifier(stem)


def _identifier(name: str) -> str:
    # ASCII alone: Python reads other letters in normalised form, so that `ﬁ` and `fi` would be one attribute.
    return re.sub(r"\W", "_", name, flags=re.ASCII)


def _inputs(graph: fx.GraphModule) -> tuple[fx.Node, fx.Node]:
    """The placeholders of features and indices: one each."""
    inputs = graph.graph.find_nodes(op="placeholder")
    features = nodes.read_as(graph, Kind.FEATURES).intersection(inputs)
    indices = nodes.read_as(graph, Kind.SITES).intersection(inputs)
    if len(features) != 1 or len(indices) != 1:
        raise CaptureError(
            "A graph takes one sparse tensor: expected one input of features and one of indices, got "
            f"features {sorted(n.name for n in features)} and indices {sorted(n.name for n in indices)}. "
            "Capture a part of the model with one sparse input."
        )
    return features.pop(), indices.pop()
