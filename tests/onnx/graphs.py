# SPDX-License-Identifier: Apache-2.0
"""Captured-style graphs made by hand, so that export tests need neither spconv nor a capture."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

import scn_fx.ops  # noqa: F401  (registers the operators)
from scn_fx.geometry import output_spatial_shape
from scn_fx.graph import Layer, layers, new_metadata, set_metadata

OPS = torch.ops.scn_fx
Grid = tuple[int, int, int]


class GraphBuilder:
    """Builds a graph node by node; tracks the sites, their grid and their current kernel map."""

    def __init__(self, grid: Grid, features: str = "features", indices: str = "coors") -> None:
        self.root = torch.nn.Module()
        self.graph = fx.Graph()
        self.features = self.graph.placeholder(features)
        self.sites = self.graph.placeholder(indices)
        self.metadata = new_metadata("zyx", features, indices)
        self.grid = grid
        self.maps: dict[str, fx.Node] = {}
        self.generator = torch.Generator().manual_seed(0)

    def _random(self, *shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=self.generator) * 0.1

    def _parameter(self, name: str, value: torch.Tensor) -> fx.Node:
        self.root.register_parameter(name, torch.nn.Parameter(value))
        return self.graph.get_attr(name)

    def _convolution(
        self,
        x: fx.Node,
        kernel_map: fx.Node,
        channels: tuple[int, int],
        bias: bool,
        kernel: list[int],
        kwargs: Any,
    ) -> fx.Node:
        c_in, c_out = channels
        stem = kwargs["name"].replace(".", "_")
        weight = self._parameter(f"{stem}_weight", self._random(c_out, *kernel, c_in))
        offset = self._parameter(f"{stem}_bias", self._random(c_out)) if bias else None
        return self.graph.call_function(OPS.convolution.default, (x, weight, offset, kernel_map), kwargs)

    def subm(
        self,
        x: fx.Node,
        name: str,
        channels: tuple[int, int],
        *,
        rulebook: str | None = None,
        activation: str = "ReLU",
        bias: bool = True,
    ) -> fx.Node:
        rulebook = rulebook or name
        if rulebook not in self.maps:
            geometry = {"spatial_shape": list(self.grid), "kernel_size": [3] * 3, "dilation": [1] * 3}
            shared = {"rulebook": rulebook, "output_bound": 160000}
            self.maps[rulebook] = self.graph.call_function(
                OPS.subm_map.default, (self.sites,), {"name": name, "batch_size": 1, **geometry, **shared}
            )
        kwargs = {"name": name, "activation": activation}
        return self._convolution(x, self.maps[rulebook], channels, bias, [3] * 3, kwargs)

    def down(
        self,
        x: fx.Node,
        name: str,
        channels: tuple[int, int],
        *,
        kernel: Grid = (3, 3, 3),
        stride: Grid = (2, 2, 2),
        padding: Grid = (1, 1, 1),
        bias: bool = True,
    ) -> fx.Node:
        out = output_spatial_shape(self.grid, kernel, stride, padding, (1, 1, 1))
        geometry = {
            "input_spatial_shape": list(self.grid),
            "output_spatial_shape": list(out),
            "stride": list(stride),
            "padding": list(padding),
            "transposed": False,
        }
        made = self.graph.call_function(
            OPS.conv_map.default,
            (self.sites,),
            {
                "name": name,
                "batch_size": 1,
                "kernel_size": list(kernel),
                "dilation": [1] * 3,
                "rulebook": name,
                "output_bound": 160000,
                **geometry,
            },
        )
        self.sites, kernel_map = (self.graph.call_function(operator.getitem, (made, i)) for i in (0, 1))
        self.grid = out
        self.maps[name] = kernel_map
        kwargs = {"name": name, "activation": "ReLU"}
        return self._convolution(x, kernel_map, channels, bias, list(kernel), kwargs)

    def block(self, x: fx.Node, name: str, channels: int, rulebook: str) -> fx.Node:
        """A residual block of two submanifold convolutions."""
        y = self.subm(x, f"{name}.conv1", (channels, channels), rulebook=rulebook)
        y = self.subm(y, f"{name}.conv2", (channels, channels), rulebook=rulebook, activation="None")
        kwargs = {"name": f"{name}.add", "activation": "ReLU", "activation_name": f"{name}.relu"}
        return self.graph.call_function(OPS.add.default, (y, x), kwargs)

    def call(self, operator_name: str, *operands: fx.Node, **kwargs: Any) -> fx.Node:
        return self.graph.call_function(getattr(OPS, operator_name).default, operands, kwargs)

    def bev(self, x: fx.Node, channels: int) -> fx.Node:
        """The dense map with z folded into the channels."""
        z, y, w = self.grid
        x = self.call(
            "scatter_dense",
            x,
            self.sites,
            name="dense",
            format="zyx",
            batch_size=1,
            spatial_shape=list(self.grid),
        )
        return self.call("reshape", x, name="dense.reshape", dims=[1, channels * z, y, w])

    def finish(self, result: fx.Node | tuple[fx.Node, ...]) -> fx.GraphModule:
        self.graph.output(result)
        graph = fx.GraphModule(self.root, self.graph)
        graph.meta["scn_fx"] = self.metadata
        return graph


def small_graph() -> fx.GraphModule:
    """Every node type of the dialect: bias and none, shared and single rulebook, a lone ReLU, a Transpose."""
    builder = GraphBuilder((5, 8, 8))
    x = builder.subm(builder.features, "conv_input.0", (5, 16), rulebook="res0", bias=False)
    x = builder.block(x, "conv1.0", 16, "res0")
    x = builder.call("add", x, x, name="conv1.twice")
    x = builder.down(x, "conv2.0", (16, 32), bias=False)
    x = builder.call("relu", x, name="conv2.relu")
    x = builder.call(
        "scatter_dense",
        x,
        builder.sites,
        name="dense",
        format="zyx",
        batch_size=1,
        spatial_shape=list(builder.grid),
    )
    x = builder.call("transpose", x, name="dense.transpose", dims=[0, 1, 2, 4, 3])
    return builder.finish(builder.call("reshape", x, name="dense.reshape", dims=[1, 96, 4, 4]))


def sparse_graph() -> fx.GraphModule:
    """Down and back up again with an inverse convolution; a sparse tensor as output."""
    builder = GraphBuilder((5, 8, 8), features="voxel_features", indices="voxel_coords")
    fine = builder.sites
    x = builder.down(builder.features, "down", (5, 16))
    back = builder.call("inverse_map", builder.maps["down"], fine, name="up", output_bound=160000)
    kwargs = {"name": "up", "activation": "None"}
    x = builder._convolution(x, back, (16, 8), True, [3] * 3, kwargs)
    return builder.finish((x, fine))


def encoder() -> fx.GraphModule:
    """The 21 convolutions of CenterPoint's sparse encoder on its 41 x 1440 x 1440 grid."""
    builder = GraphBuilder((41, 1440, 1440))
    x = builder.subm(builder.features, "conv_input.0", (5, 16), rulebook="res0", bias=False)
    widths = (16, 32, 64, 128)
    for stage, width in enumerate(widths):
        if stage:
            padding = (0, 1, 1) if stage == 3 else (1, 1, 1)
            x = builder.down(x, f"conv{stage + 1}.0", (widths[stage - 1], width), padding=padding, bias=False)
        for block in range(2):
            index = block if stage == 0 else block + 3
            x = builder.block(x, f"conv{stage + 1}.{index}", width, f"res{stage}")
    x = builder.down(
        x, "extra_conv.0", (128, 128), kernel=(3, 1, 1), stride=(2, 1, 1), padding=(0, 0, 0), bias=False
    )
    return builder.finish(builder.bev(x, 128))


def calibrate(graph: fx.GraphModule) -> fx.GraphModule:
    """Ranges and the default precisions: the first convolution float16, the rest int8, float16 at the end."""
    found = layers(graph)
    convolutions = [layer for layer in found if layer.kind == "convolution"]
    for number, layer in enumerate(convolutions):
        precision = "fp16" if number == 0 else "int8"
        output = "fp16" if layer is convolutions[-1] else "int8"
        ranges = layer.weight.abs().amax((1, 2, 3, 4)).tolist()
        layer.set(
            precision=precision,
            output_precision=output,
            input_dynamic_range=1.5 + number,
            weight_dynamic_ranges=ranges,
        )
    for layer in found:
        if layer.kind == "add":
            layer.set(
                precision="int8", output_precision="int8", input0_dynamic_range=2.25, input1_dynamic_range=0.1
            )
    set_metadata(graph, calibration={"method": "mse", "frames": 12})
    return graph


def named(graph: fx.GraphModule, name: str) -> Layer:
    (layer,) = [layer for layer in layers(graph) if layer.name == name]
    return layer
