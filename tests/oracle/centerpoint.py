# SPDX-License-Identifier: Apache-2.0
"""CenterPoint's sparse encoder with random weights: 21 convolutions, 8 residual blocks, a BEV map."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tests.oracle.frames import Frame
from tests.oracle.geometry import output_shape
from tests.oracle.golden import onnx_of_graph
from tests.oracle.network import run_network

__all__ = ["centerpoint_onnx"]

Graph = list[dict[str, Any]]
Weights = dict[str, npt.NDArray[np.generic]]
CHANNELS = (16, 32, 64, 128)


def _convolution(graph: Graph, weights: Weights, rng: np.random.Generator, out: int, **options: Any) -> None:
    name, channels = f"conv{sum('.weight' in k for k in weights)}", 5
    if graph:
        made = [e for e in graph if e["op_type"] == "SparseConvolution"]
        channels = len(weights[f"{made[-1]['name']}.weight"])
    entry = {
        "op_type": "SparseConvolution", "name": name, "input": graph[-1]["output"] if graph else "features",
        "output": name, "subm": 1, "activation": "ReLU", "rulebook": "", "kernel_size": [3, 3, 3],
        "stride": [1, 1, 1], "padding": [1, 1, 1], "dilation": [1, 1, 1], "output_bound": 200_000,
    } | options  # fmt: skip
    # sites have about a third of their neighbours; ReLU halves the variance that the next layer sees
    fan_in = channels * np.prod(entry["kernel_size"]) / 3
    weight = rng.normal(0, (2 / fan_in) ** 0.5, (out, *entry["kernel_size"], channels))
    weights[f"{name}.weight"] = (weight * (1 / 64 if channels == 5 else 1)).astype(np.float16)
    weights[f"{name}.bias"] = rng.normal(0, 0.05, out).astype(np.float16)
    peak = np.abs(weights[f"{name}.weight"].astype(np.float32)).max(axis=(1, 2, 3, 4))
    weights[f"{name}.weight_dynamic_ranges"] = peak
    graph.append(entry)


def _graph(grid: tuple[int, int, int], rng: np.random.Generator) -> tuple[Graph, Weights]:
    graph: Graph = []
    weights: Weights = {}
    shape: tuple[int, ...] = grid
    for level, out in enumerate(CHANNELS):
        if level:
            padding = [0, 1, 1] if level == 3 else [1, 1, 1]
            shape = output_shape(shape, (3, 3, 3), (2, 2, 2), padding, (1, 1, 1))
            _convolution(graph, weights, rng, out, subm=0, stride=[2, 2, 2], padding=padding)
        else:
            _convolution(graph, weights, rng, out, rulebook="res0")
        for block in range(2):
            before = graph[-1]["output"]
            _convolution(graph, weights, rng, out, rulebook=f"res{level}")
            _convolution(graph, weights, rng, out, rulebook=f"res{level}", activation="None")
            name = f"add{level}.{block}"
            graph.append(
                {"op_type": "Add", "name": name, "inputs": [graph[-1]["output"], before], "output": name}
            )  # fmt: skip
            graph.append({"op_type": "Relu", "name": f"{name}.relu", "input": name, "output": f"{name}.relu"})
    shape = output_shape(shape, (3, 1, 1), (2, 1, 1), (0, 0, 0), (1, 1, 1))
    _convolution(
        graph, weights, rng, 128, subm=0, kernel_size=[3, 1, 1], stride=[2, 1, 1], padding=[0, 0, 0]
    )  # fmt: skip
    dense = {"format": "zyx", "input_spatial_shape": list(shape), "output_shape": [1, 128, *shape]}
    graph.append(
        {"op_type": "ScatterDense", "name": "dense", "input": graph[-1]["output"], "output": "dense"} | dense
    )  # fmt: skip
    dims = [1, 128 * shape[0], *shape[1:]]
    graph.append({"op_type": "Reshape", "name": "reshape", "input": "dense", "output": "map", "dims": dims})
    return graph, weights


def centerpoint_onnx(frame: Frame, seed: int = 0) -> bytes:
    """An int8 network in the default precision; its ranges come from the oracle's fp32 run on `frame`."""
    rng = np.random.default_rng(seed)
    graph, weights = _graph(frame.shape, rng)
    last = [e["name"] for e in graph if e["op_type"] == "SparseConvolution"][-1]
    for entry in graph:
        if entry["op_type"] in ("SparseConvolution", "Add"):
            first = entry["input"] == "features" if "input" in entry else False
            entry["precision"] = "fp16" if first else "int8"
            entry["output_precision"] = "fp16" if entry["name"] == last else "int8"
            for key in ("input_dynamic_range", "input0_dynamic_range", "input1_dynamic_range"):
                entry[key] = 1.0  # replaced below
    floats = onnx_of_graph(graph, weights, frame.shape)
    values = run_network(floats, frame.features, frame.indices, precision="fp32").nodes
    peaks = {"features": 1.0}
    for entry in graph:
        peaks[entry["output"]] = float(np.abs(values[entry["name"]].values).max())
        if "input" in entry:
            entry["input_dynamic_range"] = 0.8 * peaks[entry["input"]]  # below the peak: some values clip
        else:
            for i, name in enumerate(entry["inputs"]):
                entry[f"input{i}_dynamic_range"] = 0.8 * peaks[name]
    return onnx_of_graph(graph, weights, frame.shape)
