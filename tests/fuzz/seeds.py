# SPDX-License-Identifier: Apache-2.0
"""`python -m tests.fuzz.seeds`: writes the seed corpus, the same files each time.

Seeds of `onnx` are networks of the oracle's builder, one for each part of the dialect; those of the other
targets are bytes, which decide what they draw.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from tests.oracle import builder
from tests.oracle.builder import Piece
from tests.oracle.geometry import output_shape

__all__ = ["CORPUS", "TARGETS", "main", "seeds"]

CORPUS = Path(__file__).with_name("corpus")
TARGETS = ("onnx", "network", "maps", "operators", "half", "plan")
CHOICES = 2047
"""The field of a file that holds the choices of its options and frames, see onnx_mutator.h."""

Triple = tuple[int, int, int]
GRID: Triple = (5, 7, 6)
ONES: Triple = (1, 1, 1)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


class _Network:
    """A chain of nodes; each method appends one and makes its output the current value."""

    def __init__(self, seed: int, channels: int = 4, grid: Triple = GRID, int8: bool = False) -> None:
        self.rng = np.random.default_rng(seed)
        self.pieces: list[Piece] = []
        self.value, self.channels, self.grid, self.int8 = "features", channels, grid, int8

    def _name(self, word: str) -> str:
        return f"{word}{len(self.pieces)}"

    def conv(
        self,
        kind: str,
        out: int = 4,
        kernel: Triple = (3, 3, 3),
        stride: Triple = ONES,
        dilation: Triple = ONES,
        relu: bool = False,
        rulebook: str | None = None,
        grid: Triple | None = None,
        **more: Any,
    ) -> _Network:
        padding = tuple(k // 2 * d for k, d in zip(kernel, dilation, strict=True))
        shape = grid or self.grid
        if kind in ("strided", "transposed"):
            shape = output_shape(
                self.grid, kernel, stride, padding, dilation, transposed=kind == "transposed"
            )
        weight = self.rng.normal(0, 0.3, (out, *kernel, self.channels)).astype(np.float16)
        ranges: dict[str, Any] = {}
        if self.int8:
            peak = np.abs(weight.astype(np.float32)).max(axis=(1, 2, 3, 4))
            ranges = {"precision": "int8", "input_range": 2.5, "weight_ranges": peak.tolist()}
        name = self._name(kind)
        self.pieces.append(
            builder.convolution(
                name, self.value, name, weight, self.rng.normal(0, 0.1, out).astype(np.float16),
                input_shape=self.grid, output_shape=shape, stride=stride, padding=padding,
                dilation=dilation, activation="ReLU" if relu else "None", rulebook=rulebook,
                **{k: k == kind for k in ("subm", "inverse", "transposed")}, **ranges | more,
            )
        )  # fmt: skip
        self.value, self.channels, self.grid = name, out, shape
        return self

    def add(self, other: str, op_type: str = "Add", **more: Any) -> _Network:
        name = self._name("add")
        ranges: dict[str, Any] = {"precision": "int8", "ranges": (2.0, 3.0)} if self.int8 else {}
        self.pieces.append(builder.add(name, self.value, other, name, op_type=op_type, **ranges | more))
        self.value = name
        return self

    def node(self, op_type: str, of: str | None = None, **attributes: Any) -> _Network:
        name = self._name(op_type.lower())
        self.pieces.append(builder.node(op_type, name, [of or self.value], name, **attributes))
        self.value = name
        return self

    def union(self, *others: str, **more: Any) -> _Network:
        name = self._name("union")
        self.pieces.append(builder.union(name, [self.value, *others], name, **more))
        self.value = name
        return self

    def dense(self, batch: int = 1, axes: str = "zyx") -> _Network:
        return self.node(
            "ScatterDense",
            format=axes,
            input_spatial_shape=list(self.grid),
            output_shape=[batch, self.channels, *self.grid],
        )

    def onnx(self, *outputs: str, channels: int | None = None) -> bytes:
        return builder.build_onnx(*self.pieces, outputs=outputs or (self.value,), channels=channels)


def _networks() -> Iterator[tuple[str, bytes]]:
    """Names and files: one for each part of the dialect."""
    for int8 in (False, True):
        word = "int8" if int8 else "fp16"
        yield f"subm-{word}", _Network(1, int8=int8).conv("subm").onnx()
        yield f"wide-{word}", _Network(2, 5, int8=int8).conv("subm", 20, ONES).conv("subm", 17, ONES).onnx()
        yield f"strided-{word}", _Network(3, int8=int8).conv("strided", stride=(2, 2, 2), relu=True).onnx()
        yield f"transposed-{word}", _Network(4, int8=int8).conv("transposed", 3, stride=(2, 1, 2)).onnx()
        there = _Network(5, 2, int8=int8).conv("strided", 3, stride=(2, 2, 2), rulebook="down")
        yield (
            f"inverse-{word}",
            there.conv("inverse", 2, grid=GRID, rulebook="down", stride=(2, 2, 2)).onnx(),
        )
        block = _Network(6, 3, int8=int8).conv("subm", 9, ONES, relu=True)
        block.conv("subm", 9, ONES, relu=True).conv("subm", 9, ONES).add("subm0").node("Relu")
        yield f"residual-{word}", block.onnx()
        bev = _Network(7, 2, int8=int8).conv("subm", 3, relu=True).dense(2)
        bev.node("Reshape", dims=[2, 15, 7, 6])
        yield f"bev-{word}", bev.onnx()
        two = _Network(8, 2, int8=int8).conv("subm", 3, rulebook="a").conv("subm", 3, rulebook="a").dense()
        yield f"two-outputs-{word}", two.onnx(two.value, "subm0")
    yield "dilated", _Network(9, 2).conv("subm", 2, dilation=(1, 2, 3)).onnx()
    yield "kernel-of-two-words", _Network(10, 1).conv("strided", 1, (1, 1, 70), (1, 1, 3)).onnx()
    yield "even-kernel", _Network(11, 2).conv("subm", 2, (2, 2, 1)).onnx()
    yield (
        "transpose",
        _Network(12, 2).conv("subm", 2).dense(1, "xyz").node("Transpose", dims=[0, 2, 1, 4, 3]).onnx(),
    )
    yield (
        "quant-add",
        _Network(13, 2, int8=True).conv("subm", 2).add("features", "QuantAdd").conv("subm", 2).onnx(),
    )
    yield (
        "int8-outputs",
        _Network(14, 2, int8=True)
        .conv("subm", 16, ONES, output_precision="int8")
        .conv("subm", 2, ONES)
        .onnx(),
    )
    yield "no-rulebook", _Network(15, 2).conv("subm", 2, rulebook="").conv("subm", 2, rulebook="").onnx()
    yield "bound", _Network(16, 2).conv("subm", 2, ONES, output_bound=20).onnx()
    yield (
        "sorted-cells",
        _Network(17, 2, (1100, 1000, 1000)).conv("subm", 2, ONES).conv("strided", 2, stride=(2, 2, 2)).onnx(),
    )
    yield (
        "long-axis",
        _Network(18, 2, (2, 3, 200)).conv("subm", 2).conv("strided", 2, stride=(1, 1, 2)).onnx(),
    )
    yield (
        "relu-of-features",
        _Network(19, 12).conv("subm", 12, ONES).node("Relu", "features").add("subm0").onnx(),
    )
    yield "dense-features", _Network(20, 3).conv("subm", 3, ONES).add("features").dense(3).onnx()
    united = _Network(21, 3).conv("subm", 3).conv("strided", 3).union("subm0", "features", rulebook="both")
    yield "union", united.conv("subm", 3, ONES).union("subm0", shape=list(GRID)).onnx()


def _edges() -> Iterator[tuple[str, bytes]]:
    """Names and files whose numbers lie at the edges of what they are stored in; few of them load."""
    last = 2**31 - 1
    yield "edge-grid", _Network(30, 2, (1, 2, last)).conv("subm", 2, ONES).onnx()
    yield "edge-batch", _Network(31, 2).conv("subm", 2, ONES).dense(last).onnx()
    yield "edge-dense", _Network(32, 2, (2**20, 2**20, 2**20)).conv("subm", 2, ONES).dense(8).onnx()
    yield "edge-dilation", _Network(33, 2).conv("subm", 2, dilation=(1, 1, last)).onnx()
    yield "edge-stride", _Network(34, 2).conv("strided", 2, stride=(1, last, 1)).onnx()
    yield "edge-transposed", _Network(35, 2).conv("transposed", 2, stride=(2**28, 1, 1)).onnx()
    wraps = [2**32, 2**32, 420]  # 2^64 times 420: zero in 64 bits
    yield "edge-reshape", _Network(36, 2).conv("subm", 2).dense().node("Reshape", dims=wraps).onnx()
    minus = [-1, -1, 2, 5, 7, 6]
    yield "edge-negative", _Network(37, 2).conv("subm", 2).dense().node("Reshape", dims=minus).onnx()
    yield (
        "edge-range",
        _Network(38, 2)
        .conv("subm", 2, precision="int8", input_range=1e-38, weight_ranges=[3e38, 3e38])
        .onnx(),
    )


def seeds(target: str) -> dict[str, bytes]:
    """Names and contents of a target's seeds."""
    rng = np.random.default_rng(TARGETS.index(target))
    if target == "onnx":
        # every network with frames that follow from its bytes, and with chosen ones
        chosen = {}
        for name, onnx in chain(_networks(), _edges()):
            choices = rng.bytes(48)
            chosen[f"{name}.onnx"] = onnx
            chosen[f"{name}-frames.onnx"] = onnx + _varint(CHOICES << 3 | 2) + _varint(48) + choices
        return chosen
    sizes = [16 * 2 ** (i % 6) for i in range(48)]  # as many short inputs as long ones
    return {f"{i:02d}.bin": rng.bytes(size) for i, size in enumerate(sizes)}


def main() -> None:
    """Write the corpus anew."""
    for target in TARGETS:
        folder = CORPUS / target
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.iterdir():
            old.unlink()
        for name, content in seeds(target).items():
            (folder / name).write_bytes(content)
        print(f"{target}: {len(list(folder.iterdir()))} files")


if __name__ == "__main__":
    main()
