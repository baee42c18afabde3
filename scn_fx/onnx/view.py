# SPDX-License-Identifier: Apache-2.0
"""The view of a captured graph that torch.onnx.export takes: features in, libspconv's conventions inside."""

from __future__ import annotations

import keyword
import operator
import unicodedata
from collections import Counter
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

import torch
from torch import fx, nn

import scn_fx.ops  # noqa: F401  (registers the operators)
from scn_fx.errors import ExportError
from scn_fx.graph import Layer, layers, metadata, operator_name
from scn_fx.graph_nodes import argument, values_of
from scn_fx.graph_outputs import graph_results
from scn_fx.input_grid import input_shape
from scn_fx.names import activation_nodes, unique
from scn_fx.onnx.dialect import dialect_operators
from scn_fx.operators.activations import NO_ACTIVATION, Activation
from scn_fx.operators.dialects import DIALECTS, LIBSPCONV, check_dialect
from scn_fx.operators.maps import INPUT_SITES
from scn_fx.operators.spec import Kind
from scn_fx.operators.table import activation_operator
from scn_fx.ops.checks import check_channel_ranges, check_range

__all__ = ["Builder", "OnnxView", "check_exportable", "onnx_view", "output_names"]


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
    """The layers of `graph`, after checking what every dialect asks of them.

    Raises:
        CalibrationError: an int8 node without usable ranges.
        ExportError: no layers, nodes of other operators, or two nodes of one name.
    """
    for node in graph.graph.nodes:
        if node.op in ("call_module", "call_method") or (
            node.op == "call_function" and operator_name(node) is None and node.target is not operator.getitem
        ):
            raise ExportError(
                f"Node {node.name!r} calls {node.target}, which has no form in a file: only "
                "scn_fx operators have. Export the graph as scn_fx.capture returned it."
            )
    found = layers(graph)
    if not found:
        raise ExportError("Expected a graph from scn_fx.capture(model, args), got a graph without layers.")
    for layer in found:
        if layer.spec.quantisable and layer.precision == "int8":
            _check_ranges(layer)
    repeated = [name for name, count in Counter(layer.name for layer in found).items() if count > 1]
    if repeated:
        raise ExportError(
            f"Node names must be unique in the file, got several nodes named {', '.join(repeated)}. Give "
            "each of them its own name with layer.set(name=…)."
        )
    return found


def _check_ranges(layer: Layer) -> None:
    amax = 0.0
    for each in layer.spec.input_ranges:
        for value in values_of(layer.argument(each.attribute)) or [None]:
            amax = check_range(layer.name, each.attribute, value)
    weight = layer.spec.weight_range
    if weight is not None:
        check_channel_ranges(layer.name, layer.argument(weight.attribute), layer.weight.shape[0], amax)


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


class Builder:
    """Lowers a captured graph, node by node, into the operators of a dialect.

    A layer becomes the node that its spec says, or what `OperatorSpec.lowerings` makes of it: a function of
    this builder and the layer that returns the node of the result. Sites and kernel maps are copied.

    Attributes:
        dialect: its name.
        copies: the lowered value of each value of the captured graph.
    """

    def __init__(self, graph: fx.GraphModule, found: list[Layer], dialect: str = LIBSPCONV) -> None:
        self.source = graph
        self.dialect = dialect
        self.meta = metadata(graph)
        self.layers = {layer.node: layer for layer in found}
        self.root = nn.Module()
        self.graph = fx.Graph()
        self.copies: dict[fx.Node, fx.Node] = {}
        self.weights: dict[tuple[tuple[int, ...], bytes], str] = {}
        self.activations = activation_nodes(found, dialect)

    def build(self) -> fx.GraphModule:
        self._inputs()
        for node in self.source.graph.nodes:
            if node in self.layers:
                layer = self.layers[node]
                lower = layer.spec.lowerings.get(self.dialect, Builder.node)
                self.copies[node] = lower(self, layer)
            elif node.op == "call_function":
                self.copies[node] = self.graph.node_copy(node, self.copies.__getitem__)
            elif node.op == "output":
                self._outputs()
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
            getattr(torch.ops.scn_fx, INPUT_SITES.name).default,
            (features,),
            {"spatial_shape": input_shape(self.source)},
        )

    def node(self, layer: Layer) -> fx.Node:
        """The node that a layer is in files, and one for its activation where the first cannot hold it."""
        operands = tuple(self._operand(layer, operand.name) for operand in layer.spec.operands)
        form = layer.spec.onnx
        attributes = {} if form is None else form.attributes(layer)
        # Values are called as ever: a convolution's after the operator, of others after the layer.
        value = None if layer.spec.weighted else layer.node.name
        own = self.activations.get(layer.node)
        if own is None:
            return self.call(layer.kind, layer.name, operands, attributes, value)
        if "activation" in attributes:
            attributes = {**attributes, "activation": NO_ACTIVATION}
            for name in layer.fused.attributes(0.0):
                attributes.pop(name)
        total = self.call(layer.kind, layer.name, operands, attributes, value)
        return self.activation(layer.fused, own, total, layer.activation_parameter)

    def activation(self, activation: Activation, name: str, x: fx.Node, parameter: float) -> fx.Node:
        """The node of an activation."""
        return self.call(activation_operator(activation).name, name, (x,), activation.attributes(parameter))

    def call(
        self,
        kind: str,
        name: str,
        operands: tuple[Any, ...],
        attributes: Mapping[str, Any],
        value: str | None = None,
    ) -> fx.Node:
        """A node of the dialect for an operator of kind `kind`; `value` is a name for what it computes.

        Raises:
            ExportError: the dialect has none.
        """
        found = dialect_operators(self.dialect).get(kind)
        if found is None:
            others = [each for each in sorted(DIALECTS) if kind in dialect_operators(each)]
            also = (
                f'Export with dialect="{others[0]}", which only this engine reads, or capture'
                if others
                else ""
            )
            raise ExportError(
                f"Layer {name!r}: the dialect {self.dialect} has no form of {kind}. {also or 'Capture'} a "
                "part of the model that ends before it."
            )
        keywords = {"name": name, **attributes}
        return self.graph.create_node("call_function", found.overload, operands, keywords, value)

    def _operand(self, layer: Layer, name: str) -> Any:
        (operand,) = [each for each in layer.spec.operands if each.name == name]
        if operand.kind is Kind.PARAMETER:
            value = layer.parameter(name)
            return self.parameter(layer, name, torch.zeros(layer.weight.shape[0]) if value is None else value)
        value = argument(layer.node, name)
        return [self.copies[each] for each in value] if operand.many else self.copies[value]

    def parameter(self, layer: Layer, what: str, tensor: torch.Tensor) -> fx.Node:
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

    def _outputs(self) -> None:
        copies = [self.copies[result] for result in _results(self.source)]
        self.graph.output(copies[0] if len(copies) == 1 else tuple(copies))


def _results(graph: fx.GraphModule) -> list[fx.Node]:
    """The values that a graph gives. The features of a sparse one stand for it: libspconv keeps indices."""
    kept = [result.node for result in graph_results(graph)]
    if not kept:
        raise ExportError(
            "Expected a graph that returns features, got none. Choose another output= of capture."
        )
    return kept


def output_names(graph: fx.GraphModule) -> tuple[str, ...]:
    """Names of the outputs in the file: "output", or "output0", "output1", … where there are several."""
    count = len(_results(graph))
    return ("output",) if count == 1 else tuple(f"output{i}" for i in range(count))


def onnx_view(graph: fx.GraphModule, dialect: str = LIBSPCONV) -> OnnxView:
    """A module of the features alone, for ``torch.onnx.export`` with ``**export_options(graph)``.

    `dialect` is "libspconv", or "scn_fx" for the superset that only this engine reads; `export_options` takes
    the same.

    The view holds float16 copies of the weights ([out, kz, ky, kx, in]) and a zero bias where a layer has
    none; `graph` is left as it is. A sparse output is represented by its features.

    Raises:
        CalibrationError: an int8 node has no usable ranges.
        ExportError: a weight does not fit in float16, or the graph holds what the dialect cannot.
    """
    check_dialect(dialect)
    found = check_exportable(graph)
    return OnnxView(Builder(graph, found, dialect).build()).eval()
