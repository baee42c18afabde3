# SPDX-License-Identifier: Apache-2.0
"""Graphs and measures that tests of rounding, bias correction, equalisation and fine-tuning share."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch.fx import GraphModule

import quant
from scn_fx.graph import Layer, layers
from scn_fx.quant.interpreter import FloatInterpreter
from tests.quant.graphs import GraphBuilder, frame, residual

FRAMES = [frame(seed, sites=300) for seed in range(3)]
OTHERS = [frame(seed, sites=300) for seed in range(10, 12)]


def calibrated(graph: GraphModule | None = None, method: str = "mse") -> GraphModule:
    """A graph (by default the residual one with 8 channels) with ranges from FRAMES, all of it in int8."""
    graph = residual(channels=8) if graph is None else graph
    quant.calibrate(graph, FRAMES, method=method, precision="int8", progress=False)
    return graph


def chain(relu: bool = True) -> GraphModule:
    """Three convolutions whose channels are correlated; `relu`: whether the one in the middle has a ReLU."""
    build, kernel = GraphBuilder(1), (1, 1, 1)
    x = build.conv(build.features, "first", (3, 16), kernel=kernel)
    x = build.conv(x, "second", (16, 16), relu=relu, kernel=kernel)
    return build.finish(build.dense(build.conv(x, "third", (16, 4), relu=False, kernel=kernel)))


def clipped(graph: GraphModule, *names: str, share: float = 0.5) -> GraphModule:
    """The calibrated graph with smaller input ranges at `names`, which makes errors that are no noise."""
    for name in names:
        layer = by_name(graph)[name]
        layer.set(input_dynamic_range=share * float(layer.input_dynamic_range or 0))
    return graph


def float_output(graph: GraphModule, tensors: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """What the graph computes in float32."""
    features, *rest = tensors
    with torch.no_grad():
        return FloatInterpreter(graph, lambda node, value: None).run(features.half().float(), *rest)


def sqnr(graph: GraphModule, reference: GraphModule, frames: list[tuple[torch.Tensor, ...]]) -> float:
    """Signal to noise of the graph's own arithmetic against the reference's float32, in decibels."""
    exact = [float_output(reference, tensors).double() for tensors in frames]
    with torch.no_grad():
        own = [graph(*tensors).double() for tensors in frames]
    signal = sum(float(e.square().sum()) for e in exact)
    noise = sum(float((e - o).square().sum()) for e, o in zip(exact, own, strict=True))
    return float(10 * np.log10(signal / noise))


def by_name(graph: GraphModule) -> dict[str, Layer]:
    return {layer.name: layer for layer in layers(graph)}


def parameters(graph: GraphModule) -> dict[str, tuple[torch.Tensor, torch.Tensor | None]]:
    """Copies of all weights and biases."""
    return {
        layer.name: (layer.weight.clone(), copy.deepcopy(layer.bias))
        for layer in layers(graph)
        if layer.kind == "convolution"
    }


def same_parameters(graph: GraphModule, before: dict[str, tuple[torch.Tensor, torch.Tensor | None]]) -> bool:
    now = parameters(graph)
    return all(
        torch.equal(now[name][0], weight)
        and (now[name][1] is None) == (bias is None)
        and (bias is None or torch.equal(now[name][1], bias))  # type: ignore[arg-type]
        for name, (weight, bias) in before.items()
    )


def engine_integers(weight: np.ndarray, ranges: np.ndarray) -> np.ndarray:
    """The int8 weights that an engine makes of float16 weights [out, ...] and float32 ranges [out]."""
    factor = (np.float32(127) / ranges.astype(np.float32)).reshape(-1, *[1] * (weight.ndim - 1))
    return np.clip(np.rint(weight.astype(np.float32) * factor), -128, 127).astype(int)
