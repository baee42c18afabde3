# SPDX-License-Identifier: Apache-2.0
"""The view of a captured graph that torch.onnx.export takes: features in, libspconv's conventions inside."""

from __future__ import annotations

import keyword
import operator
import unicodedata
from collections import Counter
from hashlib import sha256
from typing import Any

import torch
from torch import fx, nn

import scn_fx.ops  # noqa: F401  (registers the operators)
from scn_fx.errors import ExportError
from scn_fx.graph import Layer, layers, metadata, operator_name
from scn_fx.input_grid import input_shape
from scn_fx.ops.checks import check_channel_ranges, check_range
from scn_fx.passes.name_nodes import unique

__all__ = ["OnnxView", "check_exportable", "onnx_view", "output_names"]


class OnnxView(nn.Module):
    """A captured graph as a module of the features alone, with float16 weights named by module paths."""

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__()
        # The parameters are registered under this module, so that initialisers carry plain module paths; the
        # graph module itself stays unregistered and shares them.
        for name, child in graph.named_children():
            self.add_module(name, child)
        object.__setattr__(self, "_graph", graph)

    def forward(self, features: torch.Tensor) -> Any:
        """Run the graph on placeholder sites: the shapes are right, the values mean nothing."""
        return self._graph.forward(features)  # type: ignore[union-attr]

    def _slow_forward(self, *args: Any, **kwargs: Any) -> Any:
        # torch calls this in place of forward while the TorchScript exporter traces, to record a scope. Nodes
        # of a scope get its path as their name; without one they keep the names that the symbolics give.
        return self.forward(*args, **kwargs)


def check_exportable(graph: fx.GraphModule) -> list[Layer]:
    """The layers of `graph`, after checking that the libspconv dialect can hold it.

    Raises:
        CalibrationError: an int8 node without usable ranges.
        ExportError: no layers, nodes of other operators, or two nodes of one name.
    """
    for node in graph.graph.nodes:
        if node.op in ("call_module", "call_method") or (
            node.op == "call_function" and operator_name(node) is None and node.target is not operator.getitem
        ):
            raise ExportError(
                f"Node {node.name!r} calls {node.target}, which has no form in the libspconv dialect: only "
                "scn_fx operators have. Export the graph as scn_fx.capture returned it."
            )
    found = layers(graph)
    if not found:
        raise ExportError("Expected a graph from scn_fx.capture(model, args), got a graph without layers.")
    for layer in found:
        if layer.kind == "convolution" and layer.precision == "int8":
            amax = check_range(layer.name, "input_dynamic_range", layer.input_dynamic_range)
            check_channel_ranges(layer.name, layer.weight_dynamic_ranges, layer.weight.shape[0], amax)
        elif layer.kind == "add" and layer.precision == "int8":
            check_range(layer.name, "input0_dynamic_range", layer.input0_dynamic_range)
            check_range(layer.name, "input1_dynamic_range", layer.input1_dynamic_range)
    repeated = [name for name, count in Counter(layer.name for layer in found).items() if count > 1]
    if repeated:
        raise ExportError(
            f"Node names must be unique in the file, got several nodes named {', '.join(repeated)}. Give "
            "each of them its own name with layer.set(name=…)."
        )
    return found


def _half(name: str, what: str, tensor: torch.Tensor) -> torch.Tensor:
    """A float16 copy of `tensor`, contiguous and on the CPU."""
    if not bool(torch.isfinite(tensor).all()):
        raise ExportError(
            f"Layer {name!r}: {what} must be finite, got NaN or infinite values. Check the checkpoint."
        )
    half = tensor.detach().to("cpu", torch.float16).contiguous().clone()
    if not bool(torch.isfinite(half).all()):
        raise ExportError(
            f"Layer {name!r}: {what} must fit in float16 (largest value 65504), got "
            f"{tensor.abs().max().item():g}. The dialect stores float16 weights: rescale the layer, for "
            "instance its BatchNorm."
        )
    return half


# What torch keeps in a GraphModule, and this file in its view; modules of a model may have such names too.
_RESERVED = frozenset(dir(fx.GraphModule(nn.Module(), fx.Graph()))) | {"_graph"}


def _free_path(path: str) -> str:
    """`path` as the exporters can write it in Python code.

    Its first name is lengthened where it would hide an attribute of a torch.fx module, and every name where
    it is a keyword (a key of a ModuleDict may be); what cannot stand in a string becomes an underscore.
    """
    first, *rest = (_writable(name) for name in path.split("."))
    while first in _RESERVED:
        first += "_"
    return ".".join([first, *rest])


def _writable(name: str) -> str:
    normal = unicodedata.normalize("NFKC", name)  # as Python reads identifiers
    name = "".join(c if c.isprintable() and c not in '"\\' else "_" for c in normal)
    return f"{name}_" if keyword.iskeyword(name) else name


def _attach(root: nn.Module, path: str, tensor: nn.Parameter) -> None:
    """Register `tensor` under the dotted `path`, making the modules on the way."""
    *parents, leaf = path.split(".")
    for name in parents:
        child = root._modules.get(name)
        if child is None:
            child = nn.Module()
            root.add_module(name, child)
        root = child
    root.register_parameter(leaf, tensor)


class _Builder:
    """Copies a captured graph node by node into the form that the exporters translate."""

    def __init__(self, graph: fx.GraphModule, found: list[Layer]) -> None:
        self.source = graph
        self.meta = metadata(graph)
        self.layers = {layer.node: layer for layer in found}
        self.root = nn.Module()
        self.graph = fx.Graph()
        self.copies: dict[fx.Node, fx.Node] = {}
        self.weights: dict[tuple[tuple[int, ...], bytes], str] = {}
        self.names = {layer.name for layer in found}

    def build(self) -> fx.GraphModule:
        self._inputs()
        for node in self.source.graph.nodes:
            if node in self.layers and self.layers[node].kind == "convolution":
                self._convolution(node, self.layers[node])
            elif node in self.layers and self.layers[node].kind == "add":
                self._add(node, self.layers[node])
            elif node.op == "call_function":
                self.copies[node] = self.graph.node_copy(node, self.copies.__getitem__)
            elif node.op == "output":
                self._outputs(node)
        self.graph.eliminate_dead_code()
        self.graph.lint()
        return fx.GraphModule(self.root, self.graph)

    def _inputs(self) -> None:
        placeholders = {node.target: node for node in self.source.graph.nodes if node.op == "placeholder"}
        roles = (self.meta["features"], self.meta["indices"])
        for name, node in placeholders.items():
            if name not in roles and node.users:
                raise ExportError(
                    f"Expected features and indices as the only inputs, got a third one, {name!r}. Capture "
                    "the model with that argument as a constant."
                )
        if any(role not in placeholders for role in roles):
            raise ExportError(
                f"Expected placeholders {roles[0]!r} and {roles[1]!r} (features and indices), got "
                f"{[*placeholders]}. Export the graph as scn_fx.capture returned it."
            )
        features = self.graph.placeholder("features")
        self.copies[placeholders[roles[0]]] = features
        indices = placeholders[roles[1]]
        self.copies[indices] = self.graph.call_function(
            torch.ops.scn_fx.input_sites.default, (features,), {"spatial_shape": input_shape(self.source)}
        )

    def _convolution(self, node: fx.Node, layer: Layer) -> None:
        bias = layer.bias
        channels = layer.weight.shape[0]
        weight_node = self._parameter(layer, "weight", layer.weight)
        bias_node = self._parameter(layer, "bias", torch.zeros(channels) if bias is None else bias)
        features, kernel_map = (self.copies[node.args[i]] for i in (0, 3))  # type: ignore[index]
        self.copies[node] = self.graph.call_function(
            node.target,  # type: ignore[arg-type]
            (features, weight_node, bias_node, kernel_map),
            dict(node.kwargs),
        )

    def _add(self, node: fx.Node, layer: Layer) -> None:
        """An Add with an activation is two nodes of the dialect. A ReLU module may serve several Adds."""
        total = self.copies[node] = self.graph.node_copy(node, self.copies.__getitem__)
        if layer.activation == "ReLU":
            total.kwargs = {**total.kwargs, "activation": "None", "activation_name": ""}
            name = unique(layer.activation_name or f"{layer.name}.relu", self.names)
            self.names.add(name)
            relu = torch.ops.scn_fx.relu.default
            self.copies[node] = self.graph.call_function(relu, (total,), {"name": name})

    def _parameter(self, layer: Layer, what: str, tensor: torch.Tensor) -> fx.Node:
        """The weight or bias as float16; equal tensors share one parameter, named after the first layer.

        The TorchScript exporter merges equal initialisers in any case, and leaves Identity nodes behind.
        """
        half = _half(layer.name, what, tensor)
        key = (tuple(half.shape), sha256(half.numpy().tobytes()).digest())
        if key not in self.weights:
            path = _free_path(f"{layer.name}.{what}")
            self.weights[key] = unique(path, set(self.weights.values()))
            _attach(self.root, self.weights[key], nn.Parameter(half, requires_grad=False))
        return self.graph.create_node("get_attr", self.weights[key])

    def _outputs(self, node: fx.Node) -> None:
        copies = [self.copies[result] for result in _results(node)]
        self.graph.output(copies[0] if len(copies) == 1 else tuple(copies))


def _results(node: fx.Node) -> list[fx.Node]:
    """The feature values among the operands of an output node.

    The features of a sparse output stand for it: libspconv keeps the indices beside them.
    """
    (given,) = node.args
    results = list(given) if isinstance(given, tuple | list) else [given]
    kept = [result for result in results if isinstance(result, fx.Node) and not _is_sites(result)]
    if not kept:
        raise ExportError(
            "Expected a graph that returns features, got none. Choose another output= of capture."
        )
    return kept


def _is_sites(node: fx.Node) -> bool:
    """Whether `node` holds indices or a kernel map rather than features."""
    if node.target is operator.getitem:
        return True
    return node.op == "placeholder" or operator_name(node) in ("subm_map", "conv_map", "inverse_map")


def output_names(graph: fx.GraphModule) -> tuple[str, ...]:
    """Names of the outputs in the file: "output", or "output0", "output1", … where there are several."""
    (node,) = [node for node in graph.graph.nodes if node.op == "output"]
    count = len(_results(node))
    return ("output",) if count == 1 else tuple(f"output{i}" for i in range(count))


def onnx_view(graph: fx.GraphModule) -> OnnxView:
    """A module of the features alone, for ``torch.onnx.export`` with ``**export_options(graph)``.

    The view holds float16 copies of the weights ([out, kz, ky, kx, in]) and a zero bias where a layer has
    none; `graph` is left as it is. A sparse output is represented by its features.

    Raises:
        CalibrationError: an int8 node has no usable ranges.
        ExportError: a weight does not fit in float16, or the graph holds what the dialect cannot.
    """
    found = check_exportable(graph)
    return OnnxView(_Builder(graph, found).build()).eval()
