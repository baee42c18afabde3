# SPDX-License-Identifier: Apache-2.0
"""The CenterPoint encoder that NVIDIA's libspconv ran on a real frame: its ONNX file and its results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.oracle import builder
from tests.oracle.geometry import output_shape

__all__ = ["GRID", "golden_dense", "golden_onnx", "onnx_of_graph"]

GRID = (41, 1440, 1440)


def golden_onnx(data: Path, precision: str, path: str | Path | None = None) -> bytes:
    """ONNX of the `fp16` or `int8` graph of `data`/libspconv_golden; also written to `path` if given."""
    folder = data / "libspconv_golden"
    nodes = json.loads((folder / "graphs.json").read_text())[precision]
    with np.load(folder / "weights.npz") as weights:
        return onnx_of_graph(nodes, dict(weights), GRID, path)


def golden_dense(data: Path, precision: str) -> npt.NDArray[np.float16]:
    """libspconv's own dense map, float16 [1, 256, 180, 180]."""
    with np.load(data / "libspconv_golden" / f"nuscenes_voxels.{precision}.npz") as file:
        return np.asarray(file["dense"])


def onnx_of_graph(
    nodes: list[dict[str, Any]],
    weights: dict[str, npt.NDArray[np.generic]],
    grid: tuple[int, int, int],
    path: str | Path | None = None,
) -> bytes:
    """ONNX of a graph in the vocabulary of graphs.json; spatial shapes are propagated from `grid`."""
    shapes: dict[str, tuple[int, ...]] = {nodes[0]["input"]: grid}
    pieces = []
    for entry in nodes:
        name, y, kind = entry["name"], entry["output"], entry["op_type"]
        operands = entry.get("inputs") or [entry["input"]]
        shape = shapes.get(operands[0], ())
        if kind == "SparseConvolution":
            geometry = [entry[k] for k in ("kernel_size", "stride", "padding", "dilation")]
            shapes[y] = shape if entry["subm"] else output_shape(shape, *geometry)
            pieces.append(
                builder.convolution(
                    name,
                    operands[0],
                    y,
                    weights[f"{name}.weight"],
                    weights[f"{name}.bias"],
                    input_shape=shape,
                    output_shape=shapes[y],
                    stride=entry["stride"],
                    padding=entry["padding"],
                    dilation=entry["dilation"],
                    subm=bool(entry["subm"]),
                    activation=entry["activation"],
                    rulebook=entry["rulebook"] or name,
                    output_bound=entry["output_bound"],
                    precision=entry["precision"],
                    output_precision=entry["output_precision"],
                    input_range=entry["input_dynamic_range"],
                    weight_ranges=weights[f"{name}.weight_dynamic_ranges"].tolist(),
                )
            )
            continue
        if kind == "Add":
            ranges = entry["input0_dynamic_range"], entry["input1_dynamic_range"]
            precisions = {k: entry[k] for k in ("precision", "output_precision")}
            pieces.append(builder.add(name, *operands, y, ranges=ranges, **precisions))
        else:
            names = ("format", "input_spatial_shape", "output_shape", "dims")
            given = {k: entry[k] for k in names if k in entry}
            pieces.append(builder.node(kind, name, operands, y, **given))
        shapes[y] = shape
    return builder.build_onnx(*pieces, input_name=nodes[0]["input"], path=path)
