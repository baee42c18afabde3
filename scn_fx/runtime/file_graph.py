# SPDX-License-Identifier: Apache-2.0
"""An ONNX file of the libspconv dialect as a captured graph: what `scn_fx.capture` made of its model.

So all that works on graphs (calibration, sensitivity, comparison) works on files whose model is not there.
"""

from __future__ import annotations

import operator
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

import scn_fx.ops  # noqa: F401  (registers the operators)
from scn_fx.errors import MissingPackageError, OnnxError
from scn_fx.files.onnx_models import ONNX_FILE, check_onnx
from scn_fx.files.reading import read_file
from scn_fx.geometry import ConvGeometry, Triple
from scn_fx.graph import NAMESPACE, CapturedGraph, new_metadata, operator_spec
from scn_fx.graph_nodes import map_source
from scn_fx.graph_outputs import paired, returned
from scn_fx.input_grid import set_grid
from scn_fx.names import unique
from scn_fx.operators.activations import Activation
from scn_fx.operators.maps import CONV_MAP, INVERSE_MAP, SUBM_MAP
from scn_fx.operators.spec import Kind, OperatorSpec, Sites
from scn_fx.operators.table import of_onnx_type
from scn_fx.operators.union import UNION, UNION_MAP
from scn_fx.runtime.engine import Engine

__all__ = ["FileGraph", "file_graph", "node_label"]

_DEFAULT_BOUND = 200_000  # csrc/plan/read_convolution.cpp has the same defaults


@dataclass(frozen=True)
class FileGraph:
    """A file and its graph.

    Attributes:
        model: the `onnx.ModelProto`, as the file has it.
        graph: takes (features, indices). Everything is float32, whatever precisions the file says; its ranges
            are there. Weights are the file's, float16 values in float32.
    """

    model: Any
    graph: CapturedGraph


@dataclass(frozen=True)
class _Value:
    """A value of the graph; `sites` (a node of indices) and `grid` are None for a dense map."""

    node: fx.Node
    sites: fx.Node | None
    grid: Triple | None


@dataclass(frozen=True)
class _Map:
    node: fx.Node
    geometry: ConvGeometry
    input_sites: fx.Node
    output_sites: fx.Node


def file_graph(
    source: str | os.PathLike[str] | bytes, *, spatial_shape: Sequence[int] | None = None
) -> FileGraph:
    """The captured graph that the ONNX file `source` (path or bytes) holds.

    Layers bear the names of their nodes (of their outputs, where nodes have none). An Add that a Relu alone
    reads becomes one layer with that activation, as in a captured graph. `spatial_shape` is the input's grid,
    for files that do not say it, see `Engine`.

    Raises:
        OnnxError: the engine cannot run the file, or two of its nodes have one name.
        MissingPackageError: the package onnx is not installed.
    """
    try:
        import onnx
    except ModuleNotFoundError as error:
        raise MissingPackageError.of("onnx", "export", "Reading a file as a graph") from error
    data = source if isinstance(source, bytes) else read_file(source, ONNX_FILE)
    check_onnx(data, source)
    # The engine's reader checks the file: from here on everything is as the dialect says.
    engine = Engine(data, precision="fp32", threads=1, spatial_shape=spatial_shape)
    model = onnx.ModelProto.FromString(data)
    graph = _Builder(model, engine, spatial_shape).build()
    return FileGraph(model, graph)


def node_label(node: Any) -> str:
    """The name by which engine and graph know an ONNX node."""
    return str(node.name or node.output[0])


class _Builder:
    def __init__(self, model: Any, engine: Engine, spatial_shape: Sequence[int] | None):
        self._model = model
        self._engine = engine
        self._given = None if spatial_shape is None else _triple(spatial_shape)
        self._batch = int(engine.describe()["batch_size"] or 1)
        self._weights = {tensor.name: tensor for tensor in model.graph.initializer}
        self._root = nn.Module()
        self._graph = fx.Graph()
        self._values: dict[str, _Value] = {}
        self._maps: dict[str, _Map] = {}
        self._inverses: dict[fx.Node, _Map] = {}

    def build(self) -> CapturedGraph:
        file = self._model.graph
        labels = Counter(node_label(node) for node in file.node)
        repeated = [label for label, count in labels.items() if count > 1]
        if repeated:
            raise OnnxError(
                f"The file has several nodes named {repeated[0]!r}, and layers are known by their names. "
                "Give each node a name of its own, or none."
            )
        features = self._graph.placeholder("features")
        self._indices = self._graph.placeholder("indices")
        initializers = set(self._weights)
        (name,) = [value.name for value in file.input if value.name not in initializers]
        self._values[name] = _Value(features, self._indices, self._given)
        readers = Counter(name for node in file.node for name in node.input)
        readers.update(value.name for value in file.output)
        for node in file.node:
            self._node(node, readers)
        self._outputs([value.name for value in file.output])
        self._graph.lint()
        result = CapturedGraph(self._root, self._graph, class_name="CapturedGraph")
        network = self._engine.network_grid
        result.meta[NAMESPACE] = new_metadata(network.axes, "features", "indices", network.ndim)
        if network.grid is not None:
            set_grid(result, network.grid)
        result.eval()
        return result

    def _node(self, node: Any, readers: Counter[str]) -> None:
        attributes = _attributes(node)
        name, value = node_label(node), self._values[node.input[0]]
        spec = of_onnx_type(node.op_type)
        assert spec is not None and spec.onnx is not None
        keywords = spec.onnx.arguments(attributes)
        if spec.activation is not None and self._fused(node, spec.activation, name, keywords, readers):
            self._values[node.output[0]] = value
            return
        found = None
        if spec is UNION:
            found = self._union_map(name, attributes, [self._values[each] for each in node.input])
        elif spec.sites is Sites.MAP:
            found = self._map(name, attributes, value)
        called = self._call(spec, self._operands(spec, node, name, found), name=name, **keywords)
        if found is not None:
            made = _Value(called, found.output_sites, found.geometry.output_spatial_shape)
        elif spec.sites is Sites.SAME:
            made = _Value(called, value.sites, value.grid)
        else:
            made = _Value(called, None, None)
        self._values[node.output[0]] = made

    def _fused(
        self, node: Any, activation: Activation, name: str, keywords: dict[str, Any], readers: Counter[str]
    ) -> bool:
        """Whether a node is the activation of the Add before it, which then does it."""
        before = self._values[node.input[0]].node
        spec = operator_spec(before)
        alone = readers[node.input[0]] == 1
        if spec is None or not spec.adds or not alone or "activation" in before.kwargs:
            return False
        fused = {"activation": activation.name, **keywords, "activation_name": name}
        before.kwargs = {**before.kwargs, **fused}
        return True

    def _operands(self, spec: OperatorSpec, node: Any, name: str, found: _Map | None) -> tuple[Any, ...]:
        """The operands of an operator: a node's inputs, in order, and what is implicit in files."""
        inputs = list(node.input)
        first = self._values[inputs[0]]
        made: list[Any] = []
        for operand in spec.operands:
            if operand.kind is Kind.SITES:
                made.append(first.sites)
            elif operand.kind is Kind.MAP:
                made.append(None if found is None else found.node)
            elif operand.kind is Kind.PARAMETER:
                made.append(self._parameter(f"{name}_{operand.name}", inputs.pop(0)))
            elif operand.many:
                made.append([self._values[each].node for each in inputs])
            else:
                made.append(self._values[inputs.pop(0)].node)
        return tuple(made)

    def _parameter(self, stem: str, tensor: str) -> fx.Node:
        from onnx import numpy_helper

        array = numpy_helper.to_array(self._weights[tensor])
        stem = unique(re.sub(r"\W", "_", stem, flags=re.ASCII), set(self._root._parameters))
        value = torch.from_numpy(array.astype("float32"))
        self._root.register_parameter(stem, nn.Parameter(value, requires_grad=False))
        return self._graph.get_attr(stem)

    def _map(self, name: str, attributes: dict[str, Any], x: _Value) -> _Map:
        """The kernel map of a convolution: that of its rulebook, or a new one."""
        rulebook = attributes.get("rulebook", "")
        bound = attributes.get("output_bound", _DEFAULT_BOUND)
        shared = self._maps.get(rulebook)
        if attributes.get("inverse"):
            assert shared is not None
            shared = self._inverses.get(shared.node) or self._inverse_map(name, shared, bound)
        if shared is not None:
            _tighten(shared.node, bound)
            return shared
        assert x.sites is not None
        grid = x.grid or _triple(attributes["input_spatial_shape"])
        kernel = attributes["kernel_size"]
        dilation = attributes.get("dilation", [1, 1, 1])
        if attributes.get("subm"):
            geometry = ConvGeometry.submanifold(grid, kernel, dilation)
            node = self._call(
                SUBM_MAP,
                (x.sites,),
                name=name,
                batch_size=self._batch,
                spatial_shape=list(grid),
                kernel_size=list(geometry.kernel_size),
                dilation=list(geometry.dilation),
                rulebook=rulebook or name,
                output_bound=bound,
            )
            made = _Map(node, geometry, x.sites, x.sites)
        else:
            made = self._strided_map(name, attributes, x.sites, grid)
        if rulebook:
            self._maps[rulebook] = made
        return made

    def _strided_map(self, name: str, attributes: dict[str, Any], sites: fx.Node, grid: Triple) -> _Map:
        geometry = ConvGeometry.strided(
            grid,
            attributes["kernel_size"],
            attributes.get("stride", [1, 1, 1]),
            attributes.get("padding", [0, 0, 0]),
            attributes.get("dilation", [1, 1, 1]),
            output_padding=attributes.get("output_padding", [0, 0, 0]),
            transposed=bool(attributes.get("transposed")),
        )
        triples = (
            "input_spatial_shape", "output_spatial_shape", "kernel_size", "stride", "padding", "dilation",
            "output_padding",
        )  # fmt: skip
        both = self._call(
            CONV_MAP,
            (sites,),
            name=name,
            batch_size=self._batch,
            **{key: list(getattr(geometry, key)) for key in triples},
            transposed=geometry.transposed,
            rulebook=attributes.get("rulebook") or name,
            output_bound=attributes.get("output_bound", _DEFAULT_BOUND),
        )
        made, node = (self._graph.call_function(operator.getitem, (both, i)) for i in (0, 1))
        return _Map(node, geometry, sites, made)

    def _inverse_map(self, name: str, partner: _Map, bound: int) -> _Map:
        operands = (partner.node, partner.input_sites)
        node = self._call(INVERSE_MAP, operands, name=name, output_bound=bound)
        made = _Map(node, partner.geometry.inverted(), partner.output_sites, partner.input_sites)
        self._inverses[partner.node] = made
        return made

    def _union_map(self, name: str, attributes: dict[str, Any], parts: list[_Value]) -> _Map:
        """Sites and map of a union: those of its rulebook, or new ones."""
        rulebook = attributes.get("rulebook", "")
        bound = attributes.get("output_bound", _DEFAULT_BOUND)
        shared = self._maps.get(rulebook)
        if shared is not None:
            _tighten(shared.node, bound)
            return shared
        grid = parts[0].grid or _triple(attributes["spatial_shape"])
        both = self._call(
            UNION_MAP,
            ([part.sites for part in parts],),
            name=name,
            batch_size=self._batch,
            spatial_shape=list(grid),
            rulebook=rulebook or name,
            output_bound=bound,
        )
        sites, node = (self._graph.call_function(operator.getitem, (both, i)) for i in (0, 1))
        assert parts[0].sites is not None and UNION_MAP.map is not None and UNION_MAP.map.geometry is not None
        made = _Map(node, UNION_MAP.map.geometry(grid), parts[0].sites, sites)
        if rulebook:
            self._maps[rulebook] = made
        return made

    def _outputs(self, names: list[str]) -> None:
        """Dense maps as they are, features of a sparse result with their indices; as captured graphs do."""
        values = [self._values[name] for name in names]
        self._graph.output(returned([paired(each.node, each.sites) for each in values]))

    def _call(self, spec: OperatorSpec, operands: tuple[Any, ...], **kwargs: Any) -> fx.Node:
        return self._graph.call_function(getattr(torch.ops.scn_fx, spec.name).default, operands, kwargs)


def _tighten(kernel_map: fx.Node, bound: int) -> None:
    """Let a map keep the least bound of its layers."""
    source = map_source(kernel_map)
    assert source is not None
    least = min(bound, source.kwargs["output_bound"])  # type: ignore[type-var]
    source.kwargs = {**source.kwargs, "output_bound": least}


def _attributes(node: Any) -> dict[str, Any]:
    """Attributes of an ONNX node as plain Python values."""
    from onnx import helper

    def plain(value: Any) -> Any:
        return value.decode() if isinstance(value, bytes) else value

    return {a.name: plain(helper.get_attribute_value(a)) for a in node.attribute}


def _triple(shape: Sequence[int]) -> Triple:
    z, y, x = (int(size) for size in shape)
    return z, y, x
