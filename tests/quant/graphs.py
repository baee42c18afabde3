# SPDX-License-Identifier: Apache-2.0
"""Small captured-style graphs made by hand, and frames for them: quantisation tests need no spconv."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import fx

import scn_fx.ops  # noqa: F401  (registers the operators)
from scn_fx.graph import new_metadata

OPS = torch.ops.scn_fx
GRID = (6, 12, 12)


class GraphBuilder:
    """Builds a graph of submanifold convolutions on one set of sites, node by node."""

    def __init__(self, seed: int = 0):
        self.rng = np.random.default_rng(seed)
        self.root = torch.nn.Module()
        self.graph = fx.Graph()
        self.features = self.graph.placeholder("features")
        self.indices = self.graph.placeholder("indices")

    def conv(
        self,
        x: fx.Node,
        name: str,
        channels: tuple[int, int],
        *,
        relu: bool = True,
        kernel: tuple[int, int, int] = (3, 3, 3),
        scale: float = 1.0,
        weight: torch.Tensor | None = None,
    ) -> fx.Node:
        """A submanifold convolution from channels[0] to channels[1]."""
        c_in, c_out = channels
        if weight is None:
            values = self.rng.standard_normal((c_out, *kernel, c_in)) / np.sqrt(c_in * 5)
            weight = torch.from_numpy((scale * values).astype(np.float32))
        attribute = name.replace(".", "_")
        self.root.register_buffer(f"{attribute}_weight", weight)
        bias = torch.from_numpy(self.rng.standard_normal(c_out).astype(np.float32) * 0.1)
        self.root.register_buffer(f"{attribute}_bias", bias)
        rulebook = "subm" + "".join(map(str, kernel))
        maps = [n for n in self.graph.nodes if n.kwargs.get("name") == rulebook]
        geometry = {"kernel_size": list(kernel), "dilation": [1, 1, 1]}
        kernel_map = (
            maps[0]
            if maps
            else self.graph.call_function(
                OPS.subm_map.default,
                (self.indices,),
                {
                    "name": rulebook,
                    "batch_size": 1,
                    "spatial_shape": list(GRID),
                    "rulebook": rulebook,
                    "output_bound": 100_000,
                    **geometry,
                },
            )
        )
        return self.graph.call_function(
            OPS.convolution.default,
            (
                x,
                self.graph.get_attr(f"{attribute}_weight"),
                self.graph.get_attr(f"{attribute}_bias"),
                kernel_map,
            ),
            {"name": name, "activation": "ReLU" if relu else "None"},
        )  # fmt: skip

    def add(self, a: fx.Node, b: fx.Node, name: str, *, relu: bool = True) -> fx.Node:
        """A residual Add."""
        activation = {"activation": "ReLU", "activation_name": name + "_relu"} if relu else {}
        return self.graph.call_function(OPS.add.default, (a, b), {"name": name, **activation})

    def relu(self, x: fx.Node, name: str) -> fx.Node:
        """A Relu that is not fused."""
        return self.graph.call_function(OPS.relu.default, (x,), {"name": name})

    def dense(self, x: fx.Node, name: str = "dense") -> fx.Node:
        """Scatter to a dense map."""
        kwargs = {"name": name, "format": "zyx", "batch_size": 1, "spatial_shape": list(GRID)}
        return self.graph.call_function(OPS.scatter_dense.default, (x, self.indices), kwargs)

    def finish(self, output: Any) -> fx.GraphModule:
        """The GraphModule that yields `output`."""
        self.graph.output(output)
        module = fx.GraphModule(self.root, self.graph)
        module.meta["scn_fx"] = new_metadata("zyx", "features", "indices")
        return module


def residual(seed: int = 0, channels: int = 4) -> fx.GraphModule:
    """input convolution, residual block (two convolutions and an Add), output convolution, dense map."""
    build = GraphBuilder(seed)
    x = build.conv(build.features, "conv_input.0", (3, channels))
    y = build.conv(x, "conv1.0.conv1", (channels, channels))
    y = build.conv(y, "conv1.0.conv2", (channels, channels), relu=False)
    x = build.add(y, x, "conv1.0.add")
    x = build.conv(x, "extra_conv.0", (channels, 2 * channels))
    return build.finish(build.dense(x))


def frame(seed: int, sites: int = 120, channels: int = 3, scale: float = 1.0) -> tuple[torch.Tensor, ...]:
    """Features float32 [N, C] and unique indices int32 [N, 4] in GRID."""
    rng = np.random.default_rng(seed)
    cells = np.sort(rng.choice(int(np.prod(GRID)), sites, replace=False))
    indices = np.stack([np.zeros(sites, int), *np.unravel_index(cells, GRID)], axis=1).astype(np.int32)
    features = (scale * rng.standard_normal((sites, channels))).astype(np.float32)
    return torch.from_numpy(features), torch.from_numpy(indices)


def two_outputs(seed: int = 0, channels: int = 4) -> fx.GraphModule:
    """`residual` that returns the Add's value too, with its indices, before the dense map."""
    graph = residual(seed, channels)
    end = graph.graph.output_node()
    level = next(node for node in graph.graph.nodes if node.kwargs.get("name") == "conv1.0.add")
    indices = next(node for node in graph.graph.nodes if node.name == "indices")
    end.args = (((level, indices), end.args[0]),)
    graph.recompile()
    return graph
