# SPDX-License-Identifier: Apache-2.0
"""Runs a checked network of the libspconv dialect, node by node, with the oracle's arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.oracle import geometry, numerics
from tests.oracle.dialect import ACTIVATION_NODES, MISSING_ALPHA, Network, Node, read_network
from tests.oracle.exact import round_to_float16

__all__ = ["NodeValue", "Result", "Runner", "run_network"]

Array = npt.NDArray[np.generic]
Ints = npt.NDArray[np.int32]
Error = npt.NDArray[np.float64]


@dataclass(frozen=True)
class NodeValue:
    """What a node hands to its consumers.

    `values` is float32 (unrounded) or float16; [N, C] beside `sites` int32 [N, 4] (those of a 2D network [N,
    3] in results), or dense without sites.
    `bound` is None where every correct implementation gives these bits; else the largest allowed absolute
    difference, value by value. `overflowed` counts finite results that do not fit in float16.
    """

    name: str
    op_type: str
    values: Array
    sites: Ints | None
    bound: Error | None = None
    overflowed: int = 0


@dataclass(frozen=True)
class Result:
    """Values by node name (`nodes`) and of the graph outputs in their order (`outputs`)."""

    nodes: dict[str, NodeValue]
    outputs: tuple[NodeValue, ...]

    @property
    def dense(self) -> Array:
        """The one dense output."""
        (output,) = (o for o in self.outputs if o.sites is None)
        return output.values

    @property
    def overflowed(self) -> dict[str, int]:
        """Nodes with values beyond float16 and how many."""
        return {n.name: n.overflowed for n in self.nodes.values() if n.overflowed}


@dataclass
class Runner:
    """One run: `precision` (`fp16`, `fp32`) overrides that of all nodes.

    `given` replaces values that consumers read (by node name): with another implementation's own values
    there, each node is judged alone and differences do not add up. With `bounds`, nodes with a free summation
    order get error bounds (twice the work).
    """

    network: Network
    batch_size: int
    precision: str | None = None
    given: Mapping[str, Array] = field(default_factory=dict)
    bounds: bool = False
    _maps: dict[Any, tuple[Ints, Ints, Ints]] = field(default_factory=dict)
    _by_rulebook: dict[str, tuple[Any, tuple[Ints, Ints, Ints]]] = field(default_factory=dict)
    _unions: dict[str, list[Ints]] = field(default_factory=dict)

    def run(self, features: Array, sites: Ints) -> Result:
        """Features [N, C] float16 (or float32, rounded except in fp32 mode), sites int32 [N, ndim + 1]."""
        features = np.asarray(features)
        assert len(features) == len(sites)
        assert sites.shape[1] == self.network.ndim + 1, (
            f"sites {sites.shape} of a {self.network.ndim}D network"
        )
        sites = geometry.in_space(sites)
        if self.precision != "fp32":
            features = round_to_float16(features).values
        values = {self.network.input: NodeValue("", "Input", features, sites)}
        nodes: dict[str, NodeValue] = {}
        for node in self.network.nodes:
            value = self._node(node, [values[name] for name in node.inputs])
            nodes[node.name] = value
            if node.name in self.given:
                replaced = self.given[node.name]
                assert replaced.shape == value.values.shape, f"{node.name}: {replaced.shape}"
                value = NodeValue(node.name, node.op_type, replaced, value.sites)
            values[node.output] = value
        nodes = {name: self._on_plane(value) for name, value in nodes.items()}
        ends = {n.output: nodes[n.name] for n in self.network.nodes}
        return Result(nodes, tuple(ends.get(o, self._on_plane(values[o])) for o in self.network.outputs))

    def _on_plane(self, value: NodeValue) -> NodeValue:
        """The value with the site columns that the network has."""
        if value.sites is None:
            return value
        return replace(value, sites=geometry.on_plane(value.sites, self.network.ndim))

    def _precisions(self, node: Node) -> tuple[str, str]:
        return (self.precision,) * 2 if self.precision else (node.precision, node.output_precision)

    def _node(self, node: Node, inputs: list[NodeValue]) -> NodeValue:
        x, a = inputs[0], node.attributes
        if node.op_type == "SparseConvolution":
            return self._convolution(node, x)
        if node.op_type in ("Add", "QuantAdd", "Mul"):
            return self._pair(node, *inputs)
        if node.op_type == "Concat":
            return self._concat(node, inputs)
        if node.op_type == "SparseUnion":
            return self._union(node, inputs)
        if node.op_type == "SparsePool":
            assert x.sites is not None, f"{node.name}: pools sparse features"
            sites, kernel_map = self._map(node, x.sites)
            assert len(sites) <= a["output_bound"], f"{node.name}: {len(sites)} sites > output_bound"
            y = numerics.pool(x.values.astype(np.float32), kernel_map, a["kind"])
            return replace(self._as_operand(node, x, y), sites=sites)
        if node.op_type == "SparseGlobalPool":
            assert x.sites is not None, f"{node.name}: pools sparse features"
            y = numerics.global_pool(x.values.astype(np.float32), x.sites, self.batch_size, a["kind"])
            assert y.shape == tuple(a["output_shape"]), f"{node.name}: {y.shape} against output_shape"
            return replace(self._as_operand(node, x, y), sites=None)
        if node.op_type == "GroupNormalization":
            numbers = (np.asarray(a[name], np.float32) for name in ("scale", "shift"))
            y = numerics.group_norm(x.values.astype(np.float32), a["num_groups"], a["epsilon"], *numbers)
            return self._as_operand(node, x, y)
        if node.op_type == "Affine":
            numbers = (np.asarray(a[name], np.float32) for name in ("scale", "shift"))
            return self._as_operand(node, x, numerics.affine(x.values.astype(np.float32), *numbers))
        if node.op_type in ACTIVATION_NODES:
            kind, alpha = ACTIVATION_NODES[node.op_type], a.get("alpha", MISSING_ALPHA)
            return self._as_operand(node, x, numerics.activate(x.values.astype(np.float32), kind, alpha))
        if node.op_type == "ScatterDense":
            assert x.sites is not None, f"{node.name}: its input is dense already"
            shape = tuple(a["input_spatial_shape"])
            dense = numerics.scatter_dense(x.values, x.sites, self.batch_size, shape)
            assert dense.shape == tuple(a["output_shape"]), f"{node.name}: {dense.shape} against output_shape"
            return NodeValue(node.name, node.op_type, dense, None)
        assert x.sites is None, f"{node.name}: {node.op_type} works on the dense map"
        change = np.reshape if node.op_type == "Reshape" else np.transpose
        dense = np.ascontiguousarray(change(x.values, tuple(a["dims"])))
        return NodeValue(node.name, node.op_type, dense, None)

    def _as_operand(self, node: Node, x: NodeValue, y: Array) -> NodeValue:
        """`y` as a float16 number where the operand `x` is one."""
        if x.values.dtype != np.float16:
            return NodeValue(node.name, node.op_type, y, x.sites)
        rounded = round_to_float16(y)
        return NodeValue(node.name, node.op_type, rounded.values, x.sites, None, rounded.overflowed)

    def _concat(self, node: Node, inputs: list[NodeValue]) -> NodeValue:
        first = inputs[0].sites
        assert first is not None
        columns = []
        for x in inputs:
            assert x.sites is not None, f"{node.name}: joins sparse features"
            columns.append(x.values[geometry.align(first, x.sites)])
        return NodeValue(node.name, node.op_type, np.concatenate(columns, 1), first)

    def _union(self, node: Node, inputs: list[NodeValue]) -> NodeValue:
        """At every site of any input, the sum of those that have it, from zero and in their order."""
        given = [x.sites for x in inputs if x.sites is not None]
        assert len(given) == len(inputs), f"{node.name}: unites sparse features"
        name, most = node.attributes["rulebook"], node.attributes["output_bound"]
        assert name not in self._by_rulebook, f"{node.name}: rulebook {name!r} is of another kind of layer"
        known = self._unions.setdefault(name, given) if name else given
        same = len(known) == len(given) and all(map(np.array_equal, known, given))
        assert same, f"{node.name}: rulebook {name!r} belongs to other sites"
        sites = np.array(sorted({tuple(site) for s in given for site in s.tolist()}), np.int32).reshape(-1, 4)
        assert len(sites) <= most, f"{node.name}: {len(sites)} sites > output_bound"
        row_of = {tuple(site): row for row, site in enumerate(sites.tolist())}
        total = np.zeros((len(sites), inputs[0].values.shape[1]), np.float32)
        for x, own in zip(inputs, given, strict=True):
            assert x.values.shape[1] == total.shape[1], f"{node.name}: {x.values.shape[1]} channels come in"
            rows = np.array([row_of[tuple(site)] for site in own.tolist()], np.int64)
            total[rows] += x.values.astype(np.float32)
        wide = [x for x in inputs if x.values.dtype != np.float16]
        return replace(self._as_operand(node, (wide or inputs)[0], total), sites=sites)

    def _operand(self, x: Array, precision: str) -> tuple[Array, int]:
        """What a node of this precision computes with, and how many values overflowed on the way."""
        if precision == "fp16":
            rounded = round_to_float16(x)
            return rounded.values, rounded.overflowed
        return np.asarray(x, np.float32), 0

    def _emit(self, node: Node, y: Array, sites: Ints, error: Error | None, lost: int) -> NodeValue:
        """Applies the activation and the output precision to the unrounded result."""
        kind, alpha = node.attributes.get("activation", "None"), node.attributes.get("alpha", MISSING_ALPHA)
        if error is not None:
            error = numerics.activation_error(y, error, kind, alpha)
        # a float64 sum is rounded once, behind everything else, where nothing but its sign matters
        y = numerics.activate(y if kind in ("None", "ReLU") else y.astype(np.float32), kind, alpha)
        if self._precisions(node)[1] != "fp16":
            return NodeValue(node.name, node.op_type, y.astype(np.float32), sites, error, lost)
        rounded = round_to_float16(y)
        if error is not None:  # rounding is monotonic: the ends of the interval bound what it may give
            ends = (round_to_float16(end).values.astype(np.float64) for end in (y - error, y + error))
            error = np.maximum(*(np.abs(end - rounded.values) for end in ends))
        return NodeValue(node.name, node.op_type, rounded.values, sites, error, lost + rounded.overflowed)

    def _convolution(self, node: Node, x: NodeValue) -> NodeValue:
        a, weight, bias = node.attributes, node.weight, node.bias
        assert weight is not None and bias is not None and x.sites is not None, node.name
        assert x.values.shape[1] == weight.shape[4], f"{node.name}: {x.values.shape[1]} channels come in"
        sites, kernel_map = self._map(node, x.sites)
        assert len(sites) <= a["output_bound"], f"{node.name}: {len(sites)} sites > output_bound"
        precision = self._precisions(node)[0]
        operand, lost = self._operand(x.values, precision)
        error = None
        if precision == "int8":
            ranges = a["input_dynamic_range"], a["weight_dynamic_ranges"]
            y: Array = numerics.convolution_int8(operand, weight, bias, kernel_map, *ranges)
        elif precision == "fp16" and weight.shape[4] <= numerics.FIXED_ORDER_CHANNELS:
            y = numerics.convolution_fixed_order(operand, weight, bias, kernel_map)
        else:
            y = numerics.convolution_float64(operand, weight, bias, kernel_map)
            error = self._error(operand, weight, bias, kernel_map)
        return self._emit(node, y, sites, error, lost)

    def _error(self, x: Array, weight: Array, bias: Array, kernel_map: Ints) -> Error:
        """Bound of a float32 sum in any order; infinite (unknown) unless bounds were asked for."""
        if not self.bounds:
            return np.full((len(kernel_map), len(weight)), np.inf)
        magnitude = numerics.convolution_magnitude(x, weight, bias, kernel_map)
        return numerics.gamma(kernel_map.shape[1] * weight.shape[4]) * magnitude

    def _pair(self, node: Node, a: NodeValue, b: NodeValue) -> NodeValue:
        assert a.sites is not None and b.sites is not None, f"{node.name}: adds sparse features"
        product = node.op_type == "Mul"
        rows = geometry.align(a.sites, b.sites)
        precision = self._precisions(node)[0]
        (left, lost0), (right, lost1) = (self._operand(v, precision) for v in (a.values, b.values[rows]))
        if precision == "int8":
            ranges = (node.attributes[f"input{i}_dynamic_range"] for i in (0, 1))
            y = (numerics.multiply_int8 if product else numerics.add_int8)(left, right, *ranges)
        else:
            y = (numerics.multiply_fp16 if product else numerics.add_fp16)(left, right)
        return self._emit(node, y, a.sites, None, lost0 + lost1)

    def _map(self, node: Node, sites: Ints) -> tuple[Ints, Ints]:
        """Output sites and kernel map; layers that name the same rulebook must agree in everything."""
        a = node.attributes
        shapes = tuple(a["input_spatial_shape"]), tuple(a["output_spatial_shape"])
        geometry_key = tuple(tuple(a[k]) for k in ("kernel_size", "stride", "padding", "dilation"))
        name = a["rulebook"]
        assert name not in self._unions, f"{node.name}: rulebook {name!r} is of a union"
        if a["inverse"]:
            assert name in self._by_rulebook, f"{node.name}: no earlier layer has rulebook {name!r}"
            (_, partner_shapes, _), (before, after, kernel_map) = self._by_rulebook[name]
            assert shapes == partner_shapes[::-1], f"{node.name}: shapes are not its partner's, swapped"
            rows = np.append(geometry.align(after, sites), -1).astype(np.int32)  # -1 stays -1
            return before, rows[geometry.inverse_map(kernel_map, len(before))]
        kind = "subm" if a["subm"] else "transposed" if a.get("transposed") else "strided"
        key = (kind, shapes, geometry_key)
        if name in self._by_rulebook:
            known, (before, after, kernel_map) = self._by_rulebook[name]
            assert known == key, f"{node.name}: rulebook {name!r} is of another geometry: {known}, not {key}"
            assert np.array_equal(before, sites), f"{node.name}: rulebook {name!r} belongs to other sites"
            return after, kernel_map
        after, kernel_map = self._build(node, kind, sites, *shapes)
        if name:
            self._by_rulebook[name] = key, (sites, after, kernel_map)
        return after, kernel_map

    def _build(self, node: Node, kind: str, sites: Ints, shape: Any, out_shape: Any) -> tuple[Ints, Ints]:
        a = node.attributes
        kernel, stride, padding, dilation = (
            tuple(a[k]) for k in ("kernel_size", "stride", "padding", "dilation")
        )  # fmt: skip
        extra = tuple(a.get("output_padding", (0, 0, 0)))
        if kind == "subm":
            centred = tuple(k // 2 * d for k, d in zip(kernel, dilation, strict=True))
            keeps = stride == (1, 1, 1) and padding == centred and shape == out_shape
            assert keeps, f"{node.name}: a submanifold layer has stride 1, padding {centred} and one shape"
            return sites, geometry.submanifold_map(sites, shape, kernel, dilation)
        transposed = kind == "transposed"
        expected = geometry.output_shape(
            shape, kernel, stride, padding, dilation, transposed=transposed, output_padding=extra
        )  # fmt: skip
        assert expected == out_shape, f"{node.name}: output_spatial_shape is {out_shape}, expected {expected}"
        build = geometry.transposed_map if transposed else geometry.strided_map
        return build(sites, out_shape, kernel, stride, padding, dilation)


def run_network(
    source: str | Path | bytes | Network,
    features: Array,
    sites: Ints,
    batch_size: int | None = None,
    *,
    precision: str | None = None,
    given: Mapping[str, Array] | None = None,
    bounds: bool = False,
) -> Result:
    """Read (unless read already) and run a network on one frame; see `Runner` for the options."""
    network = source if isinstance(source, Network) else read_network(source, "scn_fx")
    if batch_size is None:
        batch_size = 1 + int(sites[:, 0].max(initial=0))
    return Runner(network, batch_size, precision, given or {}, bounds).run(features, sites)
