# SPDX-License-Identifier: Apache-2.0
"""Read and write access to a captured graph without knowing torch.fx: its layers, its data, its fingerprint.

A captured graph is a `torch.fx.GraphModule` whose nodes are scn-fx operators. `layers` gives one `Layer`
per operator that computes features (kernel maps are values between them); `Layer.set` writes ranges and
precisions where the graph itself reads them: into the keyword arguments of the node.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from scn_fx.errors import CaptureError
from scn_fx.geometry import ConvGeometry
from scn_fx.graph_maps import KernelMap, kernel_map_of, map_arguments
from scn_fx.graph_nodes import (
    NAMESPACE,
    argument,
    operands,
    operator_name,
    operator_spec,
    replace_keywords,
)
from scn_fx.operators.activations import ACTIVATIONS, NO_ACTIVATION, Activation
from scn_fx.operators.spec import Kind, OperatorSpec, Sites
from scn_fx.operators.table import OPERATORS

__all__ = [
    "KINDS",
    "NAMESPACE",
    "CapturedGraph",
    "KernelMap",
    "Layer",
    "fingerprint",
    "layers",
    "metadata",
    "new_metadata",
    "operator_name",
    "operator_spec",
    "set_all",
    "set_metadata",
]

KINDS: tuple[str, ...] = tuple(name for name, spec in OPERATORS.items() if spec.layer)
"""Kinds of layers, in the order of the operator table."""

_QUANTISATION = frozenset(
    {"precision", "output_precision"}
    | {each.attribute for spec in OPERATORS.values() for each in spec.ranges}
)
_NOT_IN_FINGERPRINT = _QUANTISATION | {"output_bound"}  # the bound sizes buffers, it changes no value


class CapturedGraph(fx.GraphModule):
    """The GraphModule of a captured graph; unlike a plain one, it is pickled with its metadata."""

    def __reduce__(self) -> tuple[Callable[..., CapturedGraph], tuple[Any, ...]]:
        rebuild, arguments = super().__reduce__()
        return _restored, (rebuild, arguments, copy.deepcopy(self.meta), self.training)


def _restored(
    rebuild: Callable[..., fx.GraphModule], arguments: tuple[Any, ...], meta: dict[str, Any], training: bool
) -> CapturedGraph:
    """Unpickle: torch.fx makes a plain GraphModule by tracing the generated code once more."""
    import scn_fx.ops  # noqa: F401 - that code calls the operators, which a fresh process has not registered

    plain = rebuild(*arguments)
    result = CapturedGraph(plain, plain.graph, class_name="CapturedGraph")
    result.meta = meta
    return result.train(training)


@dataclass(frozen=True)
class Layer:
    """One feature-computing node of a captured graph; a view, not a copy.

    Attributes:
        graph: the module that owns the node and its weights.
        node: the torch.fx node.
        name: module path of the layer in the model, such as "conv1.0.conv1" or "conv1.0.add".
        kind: one of `KINDS`.
    """

    graph: fx.GraphModule
    node: fx.Node
    name: str
    kind: str

    @property
    def spec(self) -> OperatorSpec:
        """What the table says of its operator."""
        return OPERATORS[self.kind]

    def argument(self, name: str) -> Any:
        """Value of an argument of the operator's schema: as the node has it, or else the schema's default."""
        try:
            return _plain(argument(self.node, name))
        except KeyError:
            known = [a.name for a in self.node.target._schema.arguments]  # type: ignore[union-attr]
            raise AttributeError(
                f"A layer of kind {self.kind!r} ({self.name}) has no {name!r}; it has {known}."
            ) from None

    def set(self, **kwargs: Any) -> None:
        """Set keyword arguments of the node (ranges, precisions, activation, …); the graph runs with them.

        Geometry, rulebook and bound are those of the layer's kernel map: `layer.kernel_map.set(…)`.

        Raises:
            AttributeError: the operator's schema has no keyword argument of that name.
        """
        self._replace(kwargs)
        self.graph.recompile()

    def _replace(self, kwargs: Mapping[str, Any]) -> None:
        of_map = sorted(map_arguments() & kwargs.keys()) if self.spec.sites is Sites.MAP else []
        hint = (
            f" {', '.join(of_map)} of a layer is its kernel map's, which other layers may share: set it "
            "there, with layer.kernel_map.set(…)."
            if of_map
            else ""
        )
        replace_keywords(self.node, kwargs, f"A layer of kind {self.kind!r} ({self.name})", hint)

    @property
    def inputs(self) -> tuple[fx.Node, ...]:
        """Nodes that produce the operands that are features or dense maps: one, or two for an Add."""
        return operands(self.node, Kind.FEATURES, Kind.DENSE)

    @property
    def kernel_map(self) -> KernelMap:
        """The kernel map of a convolution. An operator without one raises AttributeError."""
        return kernel_map_of(self.graph, self.argument("kernel_map"))

    @property
    def input_channels(self) -> int:
        """Width of the first operand.

        Raises:
            ExportError: nothing in the graph says it: no convolution makes or reads the value.
        """
        from scn_fx.graph_channels import channels_of

        return channels_of(self.graph, self.inputs[0])

    @property
    def weight(self) -> torch.Tensor:
        """Weight of a convolution: float32 [out, kz, ky, kx, in]."""
        value = self.parameter("weight")
        if value is None:
            raise AttributeError(f"Convolution {self.name} has no weight.")
        return value

    @property
    def bias(self) -> torch.Tensor | None:
        """Bias of a convolution: float32 [out], or None."""
        return self.parameter("bias")

    def parameter(self, name: str) -> torch.Tensor | None:
        """A parameter of the layer, by the name of the operand; None where it has none."""
        node = self.argument(name)
        if node is None:
            return None
        value: Any = self.graph
        for part in str(node.target).split("."):
            value = getattr(value, part)
        return value.detach()

    # The schema's keyword arguments, typed. An operator without the argument raises AttributeError.

    @property
    def activation(self) -> str:
        """Name of the activation that it does on the way out: "ReLU", …, or "None"."""
        return str(self.argument("activation"))

    @property
    def activation_parameter(self) -> float:
        """The number that the activation takes."""
        return float(self.argument("activation_parameter"))

    @property
    def activation_name(self) -> str:
        """Module path of the activation fused into an Add; empty without one."""
        return str(self.argument("activation_name"))

    @property
    def fused(self) -> Activation:
        """What the table says of that activation; of doing nothing, for an operator that fuses none."""
        return ACTIVATIONS[self.activation if self.spec.fuses else NO_ACTIVATION]

    @property
    def rulebook(self) -> str:
        """Name of the kernel map of a convolution; layers of equal rulebook share it."""
        return self.kernel_map.rulebook

    @property
    def precision(self) -> str:
        """ "fp32", "fp16" or "int8"."""
        return str(self.argument("precision"))

    @property
    def output_precision(self) -> str:
        """ "fp32", "fp16" or "int8" (every consumer quantises the unrounded result)."""
        return str(self.argument("output_precision"))

    @property
    def input_dynamic_range(self) -> float | None:
        """amax of a convolution's input, or None before calibration."""
        return self._optional_float("input_dynamic_range")

    @property
    def input0_dynamic_range(self) -> float | None:
        """amax of an Add's first input, or None before calibration."""
        return self._optional_float("input0_dynamic_range")

    @property
    def input1_dynamic_range(self) -> float | None:
        """amax of an Add's second input, or None before calibration."""
        return self._optional_float("input1_dynamic_range")

    @property
    def weight_dynamic_ranges(self) -> list[float] | None:
        """amax of a convolution's weight per output channel, or None before calibration."""
        value = self.argument("weight_dynamic_ranges")
        return None if value is None else [float(v) for v in value]

    @property
    def output_bound(self) -> int:
        """Most output sites that a convolution may have, as its kernel map says."""
        return self.kernel_map.output_bound

    @property
    def geometry(self) -> ConvGeometry:
        """Geometry of a convolution, as its kernel map says."""
        return self.kernel_map.geometry

    @property
    def dims(self) -> list[int]:
        """Target shape of a reshape, or permutation of a transpose."""
        return [int(v) for v in self.argument("dims")]

    @property
    def format(self) -> str:
        """Axis order of a scatter_dense: "zyx" or "xyz"."""
        return str(self.argument("format"))

    @property
    def batch_size(self) -> int:
        """Batch size of a scatter_dense or global_pool."""
        return int(self.argument("batch_size"))

    @property
    def spatial_shape(self) -> list[int]:
        """Grid of a scatter_dense, in the order of the index columns."""
        return [int(v) for v in self.argument("spatial_shape")]

    def _optional_float(self, name: str) -> float | None:
        value = self.argument(name)
        return None if value is None else float(value)


def layers(graph: fx.GraphModule) -> list[Layer]:
    """The feature-computing nodes of a captured graph, in topological order."""
    return list(_layers(graph))


def _layers(graph: fx.GraphModule) -> Iterator[Layer]:
    for node in graph.graph.nodes:
        spec = operator_spec(node)
        if spec is not None and spec.layer:
            yield Layer(graph, node, str(node.kwargs["name"]), spec.name)


def set_all(graph: fx.GraphModule, changes: Mapping[Layer, Mapping[str, Any]]) -> None:
    """Set keyword arguments of several layers of a graph, as `Layer.set` does of one, and faster.

    torch.fx makes the code of a graph anew once, and not once per layer. Raises as `Layer.set`.
    """
    for layer, kwargs in changes.items():
        layer._replace(kwargs)
    graph.recompile()


def new_metadata(axes: str, features: str, indices: str, ndim: int = 3) -> dict[str, Any]:
    """Metadata of a graph that has just been captured; `features` and `indices` are placeholder names."""
    return {
        "axes": axes,
        "ndim": ndim,
        "features": features,
        "indices": indices,
        "calibration": None,
        "grid": None,
        "notes": [],
    }


def metadata(graph: fx.GraphModule) -> dict[str, Any]:
    """The graph's metadata: axes, ndim, features, indices (placeholder names), calibration, grid, notes.

    `ndim` is the number of dimensions: indices have ndim + 1 columns. (Graphs that were saved by earlier
    versions have no such entry, and three.)

    `grid` holds the fields of the `scn_fx.lidar.VoxelGrid` that frames are voxelised in as plain data, or
    None where it is not known; see `scn_fx.input_grid`.

    Raises:
        CaptureError: the graph was not made by `scn_fx.capture`.
    """
    if NAMESPACE not in graph.meta:
        raise CaptureError(
            f"{type(graph).__name__} holds no scn_fx metadata: "
            "expected a graph from scn_fx.capture(model, args)."
        )
    return graph.meta[NAMESPACE]


def set_metadata(graph: fx.GraphModule, **items: Any) -> None:
    """Replace items of the graph's metadata."""
    graph.meta[NAMESPACE] = {**metadata(graph), **items}


def fingerprint(graph: fx.GraphModule) -> str:
    """SHA-256 (hexadecimal) of what the graph computes.

    It covers operators, names, geometry, connections and weights as float16. Ranges, precisions and
    `output_bound` are left out, so calibrating a graph does not change its fingerprint.
    Two captures of one model agree, on any device.
    """
    digest = hashlib.sha256()
    position: dict[fx.Node, int] = {}

    def plain(value: Any) -> Any:
        if isinstance(value, fx.Node):
            return {"node": position[value]}
        if isinstance(value, list | tuple):
            return [plain(v) for v in value]
        return value if isinstance(value, bool | int | float | str | None) else str(value)

    for node in graph.graph.nodes:
        position[node] = len(position)
        record: dict[str, Any] = {"op": node.op, "args": plain(node.args)}
        if node.op == "call_function":
            record["target"] = operator_name(node) or getattr(node.target, "__name__", str(node.target))
            kwargs = {k: plain(v) for k, v in node.kwargs.items() if k not in _NOT_IN_FINGERPRINT}
            record["kwargs"] = dict(sorted(kwargs.items()))
        elif node.op == "get_attr":
            value: Any = graph
            for part in str(node.target).split("."):
                value = getattr(value, part)
            half = value.detach().to("cpu", torch.float16).contiguous()
            record["shape"] = list(half.shape)
            record["data"] = hashlib.sha256(half.numpy().tobytes()).hexdigest()
        digest.update(json.dumps(record, sort_keys=True).encode())
    return digest.hexdigest()


def _plain(value: Any) -> Any:
    """torch.fx keeps sequences as immutable lists; give callers plain ones."""
    return list(value) if isinstance(value, list) else value
