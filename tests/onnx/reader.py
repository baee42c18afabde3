# SPDX-License-Identifier: Apache-2.0
"""Reads a file as libspconv's parser does: by op_type, position and literal attribute types."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import onnx
from onnx import AttributeProto, TensorProto

_FIELDS = {
    AttributeProto.INT: "i",
    AttributeProto.FLOAT: "f",
    AttributeProto.STRING: "s",
    AttributeProto.INTS: "ints",
    AttributeProto.FLOATS: "floats",
}


@dataclass(frozen=True)
class ReadNode:
    """`sources` names the producing node of each feature operand ("" for the graph input)."""

    op_type: str
    name: str
    sources: tuple[str, ...]
    attributes: dict[str, tuple[str, Any]]
    tensors: tuple[tuple[tuple[int, ...], bytes], ...]


@dataclass(frozen=True)
class ReadModel:
    nodes: tuple[ReadNode, ...]
    outputs: tuple[str, ...]
    proto: onnx.ModelProto

    def node(self, name: str) -> ReadNode:
        (found,) = [node for node in self.nodes if node.name == name]
        return found


def _attribute(attribute: AttributeProto) -> tuple[str, Any]:
    field = _FIELDS[attribute.type]
    value = getattr(attribute, field)
    if field == "s":
        return field, value.decode()
    return field, list(value) if field in ("ints", "floats") else value


def read_model(path: Path) -> ReadModel:
    """Everything libspconv sees of a file; asserts what it needs."""
    model = onnx.load(str(path), load_external_data=False)
    graph = model.graph
    assert len(graph.input) == 1, "libspconv makes an engine input of every graph input"
    tensors = {}
    for tensor in graph.initializer:
        assert tensor.data_type == TensorProto.FLOAT16, tensor.name
        assert tensor.data_location == TensorProto.DEFAULT, "weights lie inside the file"
        assert len(tensor.raw_data) == 2 * prod(tensor.dims), tensor.name
        assert not tensor.int32_data
        tensors[tensor.name] = (tuple(tensor.dims), tensor.raw_data)
    producers = {graph.input[0].name: ""}
    nodes = []
    for node in graph.node:
        wired = 1 if node.op_type == "SparseConvolution" else len(node.input)
        sources = tuple(producers[name] for name in node.input[:wired])  # the parser needs producers first
        attributes = {attribute.name: _attribute(attribute) for attribute in node.attribute}
        weights = tuple(tensors[name] for name in node.input[wired:])
        assert len(node.output) == 1
        nodes.append(ReadNode(node.op_type, node.name, sources, attributes, weights))
        producers[node.output[0]] = node.name
    return ReadModel(tuple(nodes), tuple(producers[output.name] for output in graph.output), model)
