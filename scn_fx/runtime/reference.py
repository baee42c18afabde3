# SPDX-License-Identifier: Apache-2.0
"""A captured graph as the reference of a comparison: its values under the names of the ONNX nodes."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import fx

from scn_fx.errors import CompareError
from scn_fx.graph import Layer, layers, metadata, operator_name
from scn_fx.input_grid import network_grid
from scn_fx.passes import nodes
from scn_fx.passes.name_nodes import unique
from scn_fx.runtime.array_kinds import FEATURES, INDICES
from scn_fx.runtime.host_arrays import as_numpy
from scn_fx.runtime.limits import Arithmetic

__all__ = ["Reference", "Value", "input_tensors"]


@dataclass(frozen=True)
class Value:
    """Features [N, C] on the sites `indices` (int32 [N, 4]), or a dense map with `indices` None."""

    values: npt.NDArray[Any]
    indices: npt.NDArray[np.int32] | None


Observer = Callable[[str, Value], None]


class Reference(fx.Interpreter):
    """Runs a captured graph with its own precisions and shows each value to an observer, by ONNX node name.

    An Add with an activation is two nodes in the file: its sum is shown under the Add's name, what the
    activation makes of it under the Relu's.
    """

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__(graph)
        self.extra_traceback = False  # torch.fx would append the node's text to messages of our own errors
        self._observe: Observer | None = None
        self._layers = {layer.node: layer for layer in layers(graph)}
        self._relus = _relu_names(self._layers.values())
        self._meta = metadata(graph)
        self._sites: dict[fx.Node, npt.NDArray[np.int32]] = {}
        (self._end,) = [node for node in graph.graph.nodes if node.op == "output"]

    @property
    def names(self) -> list[str]:
        """Names of the ONNX nodes that the graph becomes, in order."""
        found = []
        for node, layer in self._layers.items():
            found += [layer.name, self._relus[node]] if node in self._relus else [layer.name]
        return found

    @property
    def arithmetic(self) -> dict[str, Arithmetic]:
        """How each convolution and Add computes, by name."""
        return {
            layer.name: Arithmetic(
                layer.precision,
                layer.output_precision,
                layer.weight.shape[-1] if layer.kind == "convolution" else None,
            )
            for layer in self._layers.values()
            if layer.kind in ("convolution", "add")
        }

    def outputs(self, tensors: Sequence[torch.Tensor], observe: Observer | None = None) -> list[Value]:
        """Run one frame; the outputs in the order of the file's."""
        self._observe = observe
        self._sites.clear()
        with torch.no_grad():
            result = self.run(*tensors)
        return _outputs(self._end.args[0], result)

    def run_node(self, n: fx.Node) -> Any:
        """Run one node; remember sites, show features."""
        value = super().run_node(n)
        if n.op == "placeholder" and n.name == self._meta["indices"]:
            self._sites[n] = value.numpy()
        elif operator_name(n) == "conv_map":
            self._sites[n] = value[0].numpy()
        elif n in self._layers and self._observe is not None:
            self._show(n, value)
        return value

    def _show(self, n: fx.Node, value: torch.Tensor) -> None:
        assert self._observe is not None
        name, indices = self._layers[n].name, self._sites_of(n)
        if n in self._relus:
            args, kwargs = self.fetch_args_kwargs_from_env(n)
            total = super().call_function(n.target, args, {**kwargs, "activation": "None"})
            self._observe(name, Value(total.numpy(), indices))
            name = self._relus[n]
        self._observe(name, Value(value.numpy(), indices))

    def _sites_of(self, n: fx.Node) -> npt.NDArray[np.int32] | None:
        if self._layers[n].kind in ("scatter_dense", "reshape", "transpose"):
            return None
        sites = nodes.sites(n)
        if sites is not None and sites.op == "placeholder":
            # The placeholder of the features may stand for that of the indices.
            return next(rows for node, rows in self._sites.items() if node.op == "placeholder")
        return None if sites is None else self._sites[sites]


def input_tensors(
    graph: fx.GraphModule, frame: Sequence[Any], number: int
) -> tuple[list[torch.Tensor], int, int]:
    """The tensors of a frame as the graph takes them, and the positions of features and indices among them.

    Features are rounded to float16 and widened to float32 again: engines do the first, and float32
    convolutions read the second.

    Raises:
        CompareError: the frame does not hold what the graph takes.
        GridError: the frame is known to be voxelised in another grid than the graph's.
        SiteError: one of its arrays has another dtype, or is none in host memory.
    """
    network_grid(graph).check(frame, f"Frame {number} (counted from 0)")
    names = [str(node.name) for node in graph.graph.nodes if node.op == "placeholder"]
    if not isinstance(frame, Sequence):
        frame = list(frame)
    if len(frame) != len(names):
        raise CompareError(
            f"Frame {number} (counted from 0): expected {len(names)} arrays ({', '.join(names)}), "
            f"got {len(frame)}. Pass frames as [(features, indices), ...]."
        )
    meta = metadata(graph)
    features, indices = names.index(meta["features"]), names.index(meta["indices"])
    kinds = {features: FEATURES, indices: INDICES}
    arrays = [
        np.require(as_numpy(array, names[i], kinds.get(i)), requirements="W") for i, array in enumerate(frame)
    ]
    tensors = [torch.from_numpy(array) for array in arrays]
    tensors[features] = tensors[features].half().float()
    return tensors, features, indices


def _relu_names(found: Any) -> dict[fx.Node, str]:
    """Names of the Relu nodes behind Adds, made unique in the exporter's way."""
    every: list[Layer] = list(found)
    taken = {layer.name for layer in every}
    names: dict[fx.Node, str] = {}
    for layer in every:
        if layer.kind == "add" and layer.activation == "ReLU":
            name = unique(layer.activation_name or f"{layer.name}.relu", taken)
            taken.add(name)
            names[layer.node] = name
    return names


def _outputs(node: Any, result: Any) -> list[Value]:
    """Pairs the features among the graph's results with the indices that follow them."""
    given = list(node) if isinstance(node, tuple | list) else [node]
    values = list(result) if isinstance(result, tuple | list) else [result]
    found: list[Value] = []
    for source, value in zip(given, values, strict=True):
        is_node = isinstance(source, fx.Node)
        sites = is_node and (source.op == "placeholder" or source.target is operator.getitem)
        if sites and found and found[-1].indices is None:
            found[-1] = Value(found[-1].values, value.numpy())
        elif not sites:
            found.append(Value(value.numpy(), None))
    return found
