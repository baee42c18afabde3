# SPDX-License-Identifier: Apache-2.0
"""Writes small ONNX files of the libspconv dialect by hand, so that tests of readers need no exporter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

__all__ = ["Piece", "add", "build_onnx", "convolution", "node", "pool", "union"]

DOMAIN = "scn_fx"
Triple = Sequence[int]


@dataclass(frozen=True)
class Piece:
    """One node and the initialisers it brings."""

    proto: NodeProto
    initialisers: tuple[TensorProto, ...] = ()


def node(op_type: str, name: str, inputs: Sequence[str], output: str, **attributes: Any) -> Piece:
    """A node without initialisers; attributes that are None are left out."""
    given = {k: v for k, v in attributes.items() if v is not None}
    return Piece(helper.make_node(op_type, list(inputs), [output], name=name, domain=DOMAIN, **given))


def _float16(name: str, values: npt.ArrayLike) -> TensorProto:
    array = np.ascontiguousarray(values, np.float16)
    return helper.make_tensor(name, TensorProto.FLOAT16, array.shape, array.tobytes(), raw=True)


def convolution(
    name: str,
    x: str,
    y: str,
    weight: npt.ArrayLike,
    bias: npt.ArrayLike | None = None,
    *,
    input_shape: Triple,
    output_shape: Triple,
    stride: Triple = (1, 1, 1),
    padding: Triple = (0, 0, 0),
    dilation: Triple = (1, 1, 1),
    output_padding: Triple = (0, 0, 0),
    kernel: Triple | None = None,
    subm: bool = False,
    inverse: bool = False,
    transposed: bool = False,
    activation: str = "None",
    alpha: float | None = None,
    rulebook: str | None = None,
    output_bound: int = 200_000,
    precision: str | None = None,
    output_precision: str | None = None,
    input_range: float | None = None,
    weight_ranges: Sequence[float] | None = None,
) -> Piece:
    """A SparseConvolution; shapes are spatial (z, y, x); weight [out, kz, ky, kx, in] becomes float16."""
    weight = np.asarray(weight, np.float16)
    bias = np.zeros(len(weight), np.float16) if bias is None else np.asarray(bias, np.float16)
    ranges = None if weight_ranges is None else [float(v) for v in weight_ranges]
    piece = node(
        "SparseConvolution",
        name,
        [x, f"{name}.weight", f"{name}.bias"],
        y,
        activation=activation,
        alpha=alpha,
        kernel_size=list(weight.shape[1:4] if kernel is None else kernel),
        stride=list(stride),
        padding=list(padding),
        dilation=list(dilation),
        output_padding=list(output_padding),
        subm=int(subm),
        inverse=int(inverse),
        transposed=int(transposed),
        output_bound=output_bound,
        rulebook=name if rulebook is None else rulebook,
        precision=precision,
        output_precision=output_precision,
        input_dynamic_range=input_range,
        weight_dynamic_ranges=ranges,
        ndim=3,
        groups=1,
        in_channels=weight.shape[4],
        out_channels=weight.shape[0],
        input_spatial_shape=list(input_shape),
        output_spatial_shape=list(output_shape),
    )
    return Piece(piece.proto, (_float16(f"{name}.weight", weight), _float16(f"{name}.bias", bias)))


def pool(
    name: str,
    x: str,
    y: str,
    kind: str,
    kernel: Triple,
    *,
    input_shape: Triple,
    output_shape: Triple,
    stride: Triple = (1, 1, 1),
    padding: Triple = (0, 0, 0),
    dilation: Triple = (1, 1, 1),
    subm: bool = False,
    rulebook: str | None = None,
    output_bound: int = 200_000,
) -> Piece:
    """A SparsePool; shapes are spatial (z, y, x)."""
    return node(
        "SparsePool",
        name,
        [x],
        y,
        kind=kind,
        kernel_size=list(kernel),
        stride=list(stride),
        padding=list(padding),
        dilation=list(dilation),
        subm=int(subm),
        inverse=0,
        output_bound=output_bound,
        rulebook=name if rulebook is None else rulebook,
        input_spatial_shape=list(input_shape),
        output_spatial_shape=list(output_shape),
    )


def union(
    name: str,
    inputs: Sequence[str],
    y: str,
    *,
    rulebook: str | None = None,
    output_bound: int = 200_000,
    shape: Triple | None = None,
) -> Piece:
    """A SparseUnion of values on grids of `shape`."""
    return node(
        "SparseUnion",
        name,
        inputs,
        y,
        rulebook=name if rulebook is None else rulebook,
        output_bound=output_bound,
        spatial_shape=None if shape is None else list(shape),
    )


def add(
    name: str,
    a: str,
    b: str,
    y: str,
    *,
    precision: str | None = None,
    output_precision: str | None = None,
    ranges: tuple[float, float] | None = None,
    op_type: str = "Add",
) -> Piece:
    """An elementwise addition; `ranges` are those of its two inputs."""
    return node(
        op_type,
        name,
        [a, b],
        y,
        precision=precision,
        output_precision=output_precision,
        input0_dynamic_range=None if ranges is None else ranges[0],
        input1_dynamic_range=None if ranges is None else ranges[1],
    )


def _output_info(name: str, pieces: Sequence[Piece]) -> ValueInfoProto:
    """Sizes of outputs are left open; the checker wants their rank."""
    maker = next(p.proto for p in pieces if p.proto.output[0] == name)
    dims = next((a.ints for a in maker.attribute if a.name == "dims"), ())
    rank = len(dims) or (5 if maker.op_type == "ScatterDense" else 2)
    return helper.make_tensor_value_info(name, TensorProto.FLOAT16, [None] * rank)


def build_onnx(
    *pieces: Piece,
    outputs: Sequence[str] | None = None,
    input_name: str = "features",
    channels: int | None = None,
    path: str | Path | None = None,
    metadata: dict[str, str] | None = None,
) -> bytes:
    """The serialised model of these nodes in this order; also written to `path` if given.

    `outputs` defaults to the last node's output, `channels` to what the first convolution reads.
    """
    first = next((p for p in pieces if p.proto.op_type == "SparseConvolution"), None)
    if channels is None and first is not None:
        channels = first.initialisers[0].dims[4]
    names = [pieces[-1].proto.output[0]] if outputs is None else list(outputs)
    graph = helper.make_graph(
        [p.proto for p in pieces],
        "scn",
        [helper.make_tensor_value_info(input_name, TensorProto.FLOAT16, ["voxels", channels or 1])],
        [_output_info(name, pieces) for name in names],
        [t for p in pieces for t in p.initialisers],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(DOMAIN, 1)]
    model: ModelProto = helper.make_model(
        graph, opset_imports=opsets, producer_name="scn_fx tests", ir_version=8
    )
    if metadata:
        helper.set_model_props(model, metadata)
    data = model.SerializeToString()
    if path is not None:
        Path(path).write_bytes(data)
    return data
