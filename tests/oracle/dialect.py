# SPDX-License-Identifier: Apache-2.0
"""Reads an ONNX file as libspconv's parser does, and asserts everything that parser takes for granted.

It matches `op_type` and ignores the domain; reads `input(0..2)` and `output(0)`; wants float16 initialisers
in `raw_data` of the right size; and makes every graph input an engine input. It reads an attribute's field
(`i`, `f`, `s`, `ints`, `floats`) without looking at its type, so a wrong type is a silent zero there and an
AssertionError here.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import AttributeProto, TensorProto

__all__ = ["ACTIVATION_NODES", "ATTRIBUTES", "MISSING_ALPHA", "Network", "Node", "read_network"]

INT, FLOAT, STRING = AttributeProto.INT, AttributeProto.FLOAT, AttributeProto.STRING
INTS, FLOATS = AttributeProto.INTS, AttributeProto.FLOATS

_CONVOLUTION = {
    "alpha": FLOAT,
    **dict.fromkeys(("activation", "rulebook", "precision", "output_precision"), STRING),
    **dict.fromkeys(("kernel_size", "stride", "padding", "dilation"), INTS),
    **dict.fromkeys(("subm", "inverse", "output_bound"), INT),
    "input_dynamic_range": FLOAT,
    "weight_dynamic_ranges": FLOATS,
    **dict.fromkeys(("ndim", "transposed", "groups", "in_channels", "out_channels"), INT),
    **dict.fromkeys(("input_spatial_shape", "output_spatial_shape", "output_padding"), INTS),
    **dict.fromkeys(("input_shape", "output_shape"), INTS),
}
_ADD = {
    **dict.fromkeys(("input0_dynamic_range", "input1_dynamic_range"), FLOAT),
    **dict.fromkeys(("precision", "output_precision"), STRING),
}
ATTRIBUTES: dict[str, dict[str, int]] = {
    "SparseConvolution": _CONVOLUTION,
    "Add": _ADD,
    "QuantAdd": _ADD,
    "Mul": _ADD,
    "Affine": {"scale": FLOATS, "shift": FLOATS},
    "Concat": {"axis": INT},
    "GroupNormalization": {"num_groups": INT, "epsilon": FLOAT, "scale": FLOATS, "shift": FLOATS},
    "SparsePool": {
        **dict.fromkeys(("kind", "rulebook"), STRING),
        **dict.fromkeys(("kernel_size", "stride", "padding", "dilation", "output_padding"), INTS),
        **dict.fromkeys(("subm", "inverse", "transposed", "output_bound"), INT),
        **dict.fromkeys(("input_spatial_shape", "output_spatial_shape"), INTS),
    },
    "SparseUnion": {"rulebook": STRING, "output_bound": INT, "spatial_shape": INTS},
    "SparseGlobalPool": {"kind": STRING, "output_shape": INTS},
    "Relu": {},
    "LeakyRelu": {"alpha": FLOAT},
    "ScatterDense": {"format": STRING, "input_spatial_shape": INTS, "output_shape": INTS},
    "Reshape": {"dims": INTS},
    "Transpose": {"dims": INTS},
}
"""ONNX attribute types of every operator of the dialect; those of other activations are added below."""

ACTIVATION_NODES = {
    "Relu": "ReLU", "LeakyRelu": "LeakyReLU", "Silu": "SiLU", "Sigmoid": "Sigmoid", "Tanh": "Tanh",
    "Gelu": "GELU", "GeluTanh": "GELUTanh", "Relu6": "ReLU6", "HardSwish": "Hardswish",
    "HardSigmoid": "Hardsigmoid",
}  # fmt: skip
"""Nodes that are an activation alone, and its name. libspconv has the first."""
ATTRIBUTES.update({op_type: ATTRIBUTES.get(op_type, {}) for op_type in ACTIVATION_NODES})
MISSING_ALPHA = 0.01
"""The slope of a LeakyReLU that names none."""
_ACTIVATIONS = ("None", *ACTIVATION_NODES.values())
_OWN = {"Mul", "Affine", "GroupNormalization", "Concat", "SparsePool", "SparseUnion", "SparseGlobalPool"}
_FOREIGN = _OWN | {*ACTIVATION_NODES, *ACTIVATION_NODES.values()} - {"Relu", "ReLU"}
"""Names of activations and nodes that only the engine reads."""

_REQUIRED = {
    "SparseConvolution": (
        "activation", "kernel_size", "stride", "padding", "dilation", "subm", "inverse", "output_bound",
        "rulebook", "input_spatial_shape", "output_spatial_shape",
    ),
    "Affine": ("scale", "shift"),
    "GroupNormalization": ("num_groups", "epsilon", "scale", "shift"),
    "SparsePool": (
        "kind", "kernel_size", "stride", "padding", "dilation", "subm", "inverse", "output_bound", "rulebook",
        "input_spatial_shape", "output_spatial_shape",
    ),
    "SparseUnion": ("rulebook", "output_bound"),
    "SparseGlobalPool": ("kind", "output_shape"),
    "ScatterDense": ("format", "input_spatial_shape", "output_shape"),
    "Reshape": ("dims",),
    "Transpose": ("dims",),
}  # fmt: skip
_OPERANDS = {"SparseConvolution": 3, "Add": 2, "QuantAdd": 2, "Mul": 2}
_MOST_PARTS = {"Concat": None, "SparseUnion": 8}
"""Operators of any number of inputs; None: without a limit."""
_PRECISIONS = ("int8", "fp16")


@dataclass(frozen=True)
class Node:
    """One operator: `inputs` are feature operands only, in order."""

    name: str
    op_type: str
    inputs: tuple[str, ...]
    output: str
    attributes: dict[str, Any]
    weight: npt.NDArray[np.float16] | None = None
    bias: npt.NDArray[np.float16] | None = None

    @property
    def precision(self) -> str:
        """`int8` or `fp16`; a float graph names none and runs in fp16."""
        return str(self.attributes.get("precision", "fp16"))

    @property
    def output_precision(self) -> str:
        """What the node's consumers see: the unrounded float32 (`int8`) or float16."""
        return str(self.attributes.get("output_precision", "fp16"))


@dataclass(frozen=True)
class Network:
    """A checked file."""

    input: str
    outputs: tuple[str, ...]
    nodes: tuple[Node, ...]
    ndim: int = 3


def _attributes(proto: onnx.NodeProto) -> dict[str, Any]:
    types = ATTRIBUTES[proto.op_type]
    values: dict[str, Any] = {}
    for attribute in proto.attribute:
        name = attribute.name
        assert name not in values, f"{proto.name}: attribute {name} twice"
        expected = types.get(name)
        if expected is not None:
            kind = AttributeProto.AttributeType.Name(attribute.type)
            wanted = AttributeProto.AttributeType.Name(expected)
            assert attribute.type == expected, f"{proto.name}: {name} is {kind}, must be {wanted}"
        value = onnx.helper.get_attribute_value(attribute)
        values[name] = value.decode() if isinstance(value, bytes) else value
    for name in _REQUIRED.get(proto.op_type, ()):
        assert name in values, f"{proto.name}: attribute {name} is missing"
    for name in ("precision", "output_precision"):
        assert values.get(name, "fp16") in _PRECISIONS, f"{proto.name}: {name} is {values[name]!r}"
    return values


def _initialiser(tensor: TensorProto) -> npt.NDArray[np.float16]:
    assert tensor.data_type == TensorProto.FLOAT16, f"initialiser {tensor.name} is not float16"
    assert tensor.data_location != TensorProto.EXTERNAL, f"initialiser {tensor.name} is in another file"
    size = 2 * prod(tensor.dims)
    assert len(tensor.raw_data) == size, f"{tensor.name}: {len(tensor.raw_data)} bytes, not {size}"
    return np.frombuffer(tensor.raw_data, "<f2").reshape(tuple(tensor.dims))


def _check_ranges(node: Node) -> None:
    if node.precision != "int8":
        return
    operands = [""] if node.weight is not None else ["0", "1"]
    for name in (f"input{i}_dynamic_range" for i in operands):
        value = node.attributes.get(name)
        assert value is not None and 0 < value < np.inf, f"{node.name}: {name} is {value}, int8 needs one > 0"
    if node.weight is not None:
        ranges = node.attributes.get("weight_dynamic_ranges", ())
        assert len(ranges) == len(node.weight), f"{node.name}: {len(ranges)} weight ranges"
        assert all(0 < r < np.inf for r in ranges), f"{node.name}: weight_dynamic_ranges must be > 0"


def _check_convolution(node: Node) -> None:
    a, weight, bias = node.attributes, node.weight, node.bias
    assert weight is not None and bias is not None
    assert weight.ndim == 5, f"{node.name}: weight has {weight.ndim} axes, must be [out, kz, ky, kx, in]"
    assert list(weight.shape[1:4]) == list(a["kernel_size"]), f"{node.name}: weight against kernel_size"
    assert bias.shape == weight.shape[:1], f"{node.name}: bias {bias.shape} against {len(weight)} outputs"
    for name in ("kernel_size", "stride", "padding", "dilation"):
        assert len(a[name]) == 3, f"{node.name}: {name} has {len(a[name])} entries, must have 3"
    for name in ("input_spatial_shape", "output_spatial_shape"):
        assert len(a[name]) == 3, f"{node.name}: {name} has {len(a[name])} entries, must have 3"
    assert a["activation"] in _ACTIVATIONS, f"{node.name}: activation {a['activation']!r}"
    assert a["subm"] in (0, 1) and a["inverse"] in (0, 1) and a["output_bound"] > 0, node.name
    for name, size in (("in_channels", weight.shape[4]), ("out_channels", weight.shape[0])):
        assert a.get(name, size) == size, f"{node.name}: {name} is {a[name]}, the weight says {size}"


def _node(proto: onnx.NodeProto, initialisers: dict[str, TensorProto], used: set[str]) -> Node:
    assert proto.op_type in ATTRIBUTES, f"{proto.name}: operator {proto.op_type} is not of the dialect"
    assert proto.name, f"a {proto.op_type} has no name"
    count = _OPERANDS.get(proto.op_type, 1)
    if proto.op_type in _MOST_PARTS:
        count = min(len(proto.input), _MOST_PARTS[proto.op_type] or len(proto.input))
    assert len(proto.input) == count >= 1, f"{proto.name}: {len(proto.input)} inputs, expected {count}"
    assert len(proto.output) == 1, f"{proto.name}: {len(proto.output)} outputs, expected 1"
    attributes, feature_inputs, weight, bias = _attributes(proto), tuple(proto.input), None, None
    if proto.op_type == "SparseConvolution":
        for name in proto.input[1:]:
            assert name in initialisers, f"{proto.name}: {name} is not an initialiser"
        weight, bias = (_initialiser(initialisers[name]) for name in proto.input[1:])
        used.update(proto.input[1:])
        feature_inputs = (proto.input[0],)
    node = Node(proto.name, proto.op_type, feature_inputs, proto.output[0], attributes, weight, bias)
    if proto.op_type == "SparseConvolution":
        _check_convolution(node)
    if proto.op_type in _OPERANDS:
        _check_ranges(node)
    assert attributes.get("axis", 1) == 1, f"{proto.name}: axis is {attributes['axis']}"
    return node


def read_network(source: str | Path | bytes, dialect: str = "libspconv") -> Network:
    """Parse and check; raises AssertionError with the node and attribute that breaks a rule.

    `dialect` "scn_fx" allows what only the engine reads, too.
    """
    data = source if isinstance(source, bytes) else Path(source).read_bytes()
    model = onnx.load_model_from_string(data)
    graph = model.graph
    assert len(graph.input) == 1, f"{len(graph.input)} graph inputs; libspconv wants the features alone"
    assert graph.output, "the graph has no output"
    assert not graph.sparse_initializer, "sparse initialisers are not read"
    initialisers = {t.name: t for t in graph.initializer}
    known, used, nodes = {graph.input[0].name}, set(), []
    for proto in graph.node:
        node = _node(proto, initialisers, used)
        if dialect == "libspconv":
            foreign = {node.op_type, node.attributes.get("activation")} & _FOREIGN
            assert not foreign, f"{node.name}: libspconv has no {foreign}"
            assert "alpha" not in node.attributes, f"{node.name}: libspconv has no attribute alpha"
        for name in node.inputs:
            assert name in known, f"{node.name}: its input {name} comes from no earlier node"
        assert node.output not in known, f"{node.name}: its output {node.output} exists already"
        known.add(node.output)
        nodes.append(node)
    names = [n.name for n in nodes]
    assert len(set(names)) == len(names), "node names are not unique"
    unused = set(initialisers) - used
    assert not unused, f"initialisers without a reader: {sorted(unused)}"
    outputs = tuple(o.name for o in graph.output)
    assert set(outputs) <= known, f"graph outputs {sorted(set(outputs) - known)} come from no node"
    return Network(graph.input[0].name, outputs, tuple(nodes), _dimensions(model, nodes))


def _dimensions(model: onnx.ModelProto, nodes: list[Node]) -> int:
    """What the metadata says of the width of indices; grids keep three axes, the first of one cell."""
    said = {entry.key: entry.value for entry in (*model.metadata_props, *model.graph.metadata_props)}
    ndim = int(said.get("scn_fx.ndim", "3"))
    assert ndim in (1, 2, 3), f"scn_fx.ndim is {ndim}"
    for node in nodes:
        for name in ("input_spatial_shape", "output_spatial_shape", "spatial_shape", "kernel_size"):
            lead = list(node.attributes.get(name, ()))[: 3 - ndim]
            assert lead == [1] * len(lead), f"{node.name}: {name} has {lead} along axes that {ndim}D lacks"
    return ndim
