# SPDX-License-Identifier: Apache-2.0
"""A captured graph as the reference of a comparison: its values under the names of the ONNX nodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import fx

from scn_fx.errors import CompareError
from scn_fx.graph import layers, metadata, operator_spec
from scn_fx.graph_outputs import graph_results, listed
from scn_fx.input_grid import network_grid
from scn_fx.names import activation_nodes
from scn_fx.operators.activations import NO_ACTIVATION
from scn_fx.operators.dialects import SCN_FX
from scn_fx.operators.spec import Kind, Sites
from scn_fx.passes import nodes
from scn_fx.runtime.array_kinds import FEATURES, indices_of
from scn_fx.runtime.host_arrays import as_numpy
from scn_fx.runtime.index_columns import IndexColumns
from scn_fx.runtime.limits import Arithmetic

__all__ = ["Reference", "Value", "input_tensors"]


@dataclass(frozen=True)
class Value:
    """Features [N, C] on the sites `indices` (int32 [N, ndim + 1]), or a dense map with `indices` None."""

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
        self._activations = activation_nodes(self._layers.values(), SCN_FX)
        self._meta = metadata(graph)
        self._sites: dict[fx.Node, npt.NDArray[np.int32]] = {}
        self._results = graph_results(graph)

    @property
    def names(self) -> list[str]:
        """Names of the ONNX nodes that the graph becomes, in order."""
        found = []
        for node, layer in self._layers.items():
            found += [layer.name, self._activations[node]] if node in self._activations else [layer.name]
        return found

    @property
    def ndim(self) -> int:
        """Dimensions of the network."""
        return int(self._meta.get("ndim", 3))

    @property
    def arithmetic(self) -> dict[str, Arithmetic]:
        """How each convolution and Add computes, by name."""
        return {
            layer.name: Arithmetic(
                layer.precision,
                layer.output_precision,
                layer.weight.shape[-1] if layer.spec.weighted else None,
            )
            for layer in self._layers.values()
            if layer.spec.quantisable
        }

    def outputs(self, tensors: Sequence[torch.Tensor], observe: Observer | None = None) -> list[Value]:
        """Run one frame; the outputs in the order of the file's."""
        self._observe = observe
        self._sites.clear()
        with torch.no_grad():
            result = self.run(*tensors)
        values = listed(result)
        return [
            Value(
                values[each.position].numpy(), None if each.indices is None else values[each.indices].numpy()
            )
            for each in self._results
        ]

    def run_node(self, n: fx.Node) -> Any:
        """Run one node; remember sites, show features."""
        value = super().run_node(n)
        spec = operator_spec(n)
        if n.op == "placeholder" and n.name == self._meta["indices"]:
            self._sites[n] = value.numpy()
        elif spec is not None and not spec.layer and Kind.SITES in spec.gives:
            self._sites[n] = value[spec.gives.index(Kind.SITES)].numpy()
        elif n in self._layers and self._observe is not None:
            self._show(n, value)
        return value

    def _show(self, n: fx.Node, value: torch.Tensor) -> None:
        assert self._observe is not None
        name, indices = self._layers[n].name, self._sites_of(n)
        if n in self._activations:
            args, kwargs = self.fetch_args_kwargs_from_env(n)
            total = super().call_function(n.target, args, {**kwargs, "activation": NO_ACTIVATION})
            self._observe(name, Value(total.numpy(), indices))
            name = self._activations[n]
        self._observe(name, Value(value.numpy(), indices))

    def _sites_of(self, n: fx.Node) -> npt.NDArray[np.int32] | None:
        if self._layers[n].spec.sites is Sites.DENSE:
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
    kinds = {features: FEATURES, indices: indices_of(int(meta.get("ndim", 3)))}
    arrays = [
        np.require(as_numpy(array, names[i], kinds.get(i)), requirements="W") for i, array in enumerate(frame)
    ]
    IndexColumns(int(meta.get("ndim", 3))).check(arrays[indices], f"frame {number} of this graph")
    tensors = [torch.from_numpy(array) for array in arrays]
    tensors[features] = tensors[features].half().float()
    return tensors, features, indices
