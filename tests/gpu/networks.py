# SPDX-License-Identifier: Apache-2.0
"""Networks for the CUDA engine: random ones of many kernels, widths and strides, and a small one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.oracle import builder, strategies
from tests.oracle.frames import random_sites
from tests.oracle.geometry import output_shape

__all__ = ["GRID", "WideNetwork", "small_network", "wide_network"]

Triple = tuple[int, int, int]

# Where kernels change their tiles, and everything between.
CHANNELS = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 48, 64, 65, 96, 100, 127, 128, 129, 192, 255, 256)

GRID: Triple = (6, 10, 12)
"""Grid of `small_network`."""


@dataclass(frozen=True)
class WideNetwork:
    """A serialised network, a frame, and a summary for failing tests."""

    onnx: bytes
    features: npt.NDArray[np.float16]
    sites: npt.NDArray[np.int32]
    batch_size: int
    summary: str


@dataclass
class _Growing:
    """A network while it grows: tensor, channels, grid and site set of its end."""

    rng: np.random.Generator
    precision: str
    tensor: str
    channels: int
    shape: Triple
    sites: str = "input"
    pieces: list[builder.Piece] = field(default_factory=list)
    words: list[str] = field(default_factory=list)

    def ranges(self, count: int) -> list[float]:
        return [float(np.float32(self.rng.uniform(0.5, 6.0))) for _ in range(count)]

    def output_precision(self) -> str:
        return "int8" if self.precision == "int8" and self.rng.random() < 0.6 else "fp16"

    def triple(self, low: int, high: int) -> Triple:
        z, y, x = (int(n) for n in self.rng.integers(low, high + 1, 3))
        return z, y, x

    def activation(self, active: bool) -> dict[str, Any]:
        """Mostly ReLU: the kernels that finish other activations are few, and one for all layers."""
        if not active:
            return {"activation": "None"}
        number = int(self.rng.integers(8))
        if number > 1:
            return {"activation": "ReLU"}
        return {"activation": "LeakyReLU", "alpha": 0.25} if number else {"activation": "SiLU"}

    def convolution(self, kind: str, out: int | None = None, active: bool = True) -> None:
        """Appends a convolution; one that would leave the grid too small or too large becomes submanifold."""
        kernel, dilation = self.triple(1, 5), self.triple(1, 2)
        stride = (1, 1, 1) if kind == "subm" else self.triple(1, 3)
        padding = tuple(k // 2 * d for k, d in zip(kernel, dilation, strict=True))
        shape = self.shape
        if kind != "subm":
            made = output_shape(shape, kernel, stride, padding, dilation, transposed=kind == "transposed")
            if min(made) < 1 or int(np.prod(made)) > 30_000:
                kind, stride = "subm", (1, 1, 1)
            else:
                shape = (made[0], made[1], made[2])
        name, channels = f"{kind}{len(self.pieces)}", out or int(self.rng.choice(CHANNELS))
        weight, bias = strategies.weights_for(self.rng, channels, kernel, self.channels)
        options: dict[str, Any] = {"precision": self.precision, "output_precision": self.output_precision()}
        if self.precision == "int8":
            peak = np.abs(weight).max(axis=(1, 2, 3, 4)).astype(np.float32)
            options |= {"input_range": self.ranges(1)[0], "weight_ranges": np.maximum(peak, 1e-3).tolist()}
        self.pieces.append(
            builder.convolution(
                name, self.tensor, name, weight, bias, input_shape=self.shape, output_shape=shape,
                stride=stride, padding=padding, dilation=dilation, subm=kind == "subm",
                transposed=kind == "transposed", output_bound=120_000, **self.activation(active),
                **options,
            )
        )  # fmt: skip
        self.words.append(f"{kind} {kernel}/{stride}/{dilation} {self.channels}->{channels}")
        self.tensor, self.channels, self.shape = name, channels, shape

    def residual(self) -> None:
        """Appends a submanifold convolution and the sum of its two ends."""
        before = self.tensor
        self.convolution("subm", out=self.channels, active=False)
        name = f"add{len(self.pieces)}"
        options: dict[str, Any] = {"precision": self.precision, "output_precision": self.output_precision()}
        if self.precision == "int8":
            options["ranges"] = tuple(self.ranges(2))
        self.pieces.append(builder.add(name, self.tensor, before, name, **options))
        self.words.append("add")
        self.tensor = name
        if self.rng.random() < 0.5:
            self.pieces.append(builder.node("Relu", f"{name}.relu", [name], f"{name}.relu"))
            self.tensor = f"{name}.relu"


def wide_network(seed: int, precision: str) -> WideNetwork:
    """One to four convolutions of any width in one precision ("int8" or "fp16"); batch 1 to 4.

    Ends dense, sparse, or both.
    """
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(2, 9)), int(rng.integers(3, 20)), int(rng.integers(3, 40)))
    channels, batch_size = int(rng.choice(CHANNELS)), int(rng.integers(1, 5))
    net = _Growing(rng, precision, "features", channels, shape)
    net.convolution(str(rng.choice(["subm", "strided", "transposed"])))
    for _ in range(int(rng.integers(0, 3))):
        kind = str(rng.choice(["subm", "strided", "transposed", "residual"]))
        if kind == "residual":
            net.residual()
        else:
            net.convolution(kind)
    ending, sparse = rng.choice(["dense", "sparse", "both"]), net.tensor
    outputs = [] if ending == "dense" else [sparse]
    if ending != "sparse":
        dense = {
            "input_spatial_shape": list(net.shape),
            "output_shape": [batch_size, net.channels, *net.shape],
        }
        net.pieces.append(builder.node("ScatterDense", "dense", [sparse], "dense", format="zyx", **dense))
        outputs.append("dense")
    cells = batch_size * int(np.prod(shape))
    count = int(rng.choice([0, 1, 2, 63, 64, 65, rng.integers(3, 700), rng.integers(3, 700), cells]))
    sites = random_sites(rng, min(count, cells, 900), shape, batch_size, ordered=bool(rng.random() < 0.5))
    features = strategies.features_for(rng, len(sites), channels)
    onnx = builder.build_onnx(*net.pieces, outputs=outputs, channels=channels)
    summary = f"seed {seed}: {len(sites)} sites, batch {batch_size}, {'; '.join(net.words)}; {ending}"
    return WideNetwork(onnx, features, sites, batch_size, summary)


def small_network(
    *,
    scale: float = 0.1,
    bound: int = 1000,
    batch_size: int = 1,
    sparse: bool = False,
    precision: str = "int8",
) -> bytes:
    """A residual block on two channels and a strided layer of at most `bound` sites; dense or sparse."""
    weight = np.full((2, 3, 3, 3, 2), scale, np.float16)
    shared: dict[str, Any] = {"precision": precision, "output_precision": "fp16"}
    ranges = {"input_range": 2.0, "weight_ranges": [max(scale, 1e-3)] * 2} if precision == "int8" else {}
    half = (3, 5, 6)
    pieces = [
        builder.convolution(
            "conv1.0", "features", "a", weight, input_shape=GRID, output_shape=GRID, padding=(1, 1, 1),
            subm=True, **shared, **ranges,
        ),
        builder.add("conv1.add", "a", "features", "b", **shared, ranges=(2.0, 2.0) if ranges else None),
        builder.convolution(
            "conv2.0", "b", "c", weight, input_shape=GRID, output_shape=half, stride=(2, 2, 2),
            padding=(1, 1, 1), output_bound=bound, **shared, **ranges,
        ),
    ]  # fmt: skip
    if not sparse:
        dense = {"input_spatial_shape": list(half), "output_shape": [batch_size, 2, *half]}
        pieces.append(builder.node("ScatterDense", "dense", ["c"], "d", format="zyx", **dense))
    return builder.build_onnx(*pieces)
