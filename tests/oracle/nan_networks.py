# SPDX-License-Identifier: Apache-2.0
"""Networks whose float32 values overflow on purpose, so that infinity and NaN meet every activation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tests.oracle import builder
from tests.oracle.frames import random_sites
from tests.oracle.network import Result, run_network

__all__ = ["NanNetwork", "assert_same_values", "nan_network"]

GRID = (4, 6, 7)
_GROWTH, _LAYERS = 2.0**15, 9  # 2^135 is beyond float32, and exact in the oracle's float64


@dataclass(frozen=True)
class NanNetwork:
    """A file, a frame, and what the oracle makes of it in float32."""

    onnx: bytes
    features: npt.NDArray[np.float16]
    sites: npt.NDArray[np.int32]
    expected: Result


def _diagonal(channels: int, value: float, size: int = 1) -> npt.NDArray[np.float16]:
    weight = np.zeros((channels, size, size, size, channels), np.float16)
    weight[:, size // 2, size // 2, size // 2] = np.eye(channels) * value
    return weight


def nan_network(channels: int, seed: int = 0) -> NanNetwork:
    """Nine layers that grow by 2^15 each; then infinity less infinity, a sum with several activations, a
    ReLU of its own, and convolutions with activations; dense and sparse outputs.

    A third of the sites holds zeros, and stays finite where it has no other neighbours.
    """
    pieces, x = [], "features"
    same = {"input_shape": GRID, "output_shape": GRID, "subm": True}
    for number in range(_LAYERS):
        name = f"grow{number}"
        pieces.append(
            builder.convolution(name, x, name, _diagonal(channels, _GROWTH), rulebook="one", **same)
        )
        x = name
    pieces += [
        builder.convolution("turn", x, "turn", _diagonal(channels, -1.0), rulebook="one", **same),
        builder.add("sum", x, "turn", "sum"),
        builder.node("Relu", "sum.relu", ["sum"], "sum.relu"),
        builder.node("LeakyRelu", "sum.leaky", ["sum"], "sum.leaky", alpha=0.25),
        builder.node("Silu", "sum.silu", ["sum"], "sum.silu"),
        builder.convolution(
            "near", "sum.relu", "near", _diagonal(channels, 0.5, 3), padding=(1, 1, 1), activation="ReLU",
            **same,
        ),
        builder.convolution(
            "smooth", "sum.leaky", "smooth", _diagonal(channels, 0.5, 3), padding=(1, 1, 1),
            activation="SiLU", **same,
        ),
        builder.node("Relu", "turn.relu", ["turn"], "turn.relu"),
        builder.add("again", "near", "turn.relu", "again"),
        builder.node("Relu", "end", ["again"], "end"),
        builder.node(
            "ScatterDense", "dense", ["end"], "dense", format="zyx", input_spatial_shape=list(GRID),
            output_shape=[1, channels, *GRID],
        ),
    ]  # fmt: skip
    outputs = ["dense", "sum.relu", "sum.silu", "near", "smooth", "end"]
    data = builder.build_onnx(*pieces, outputs=outputs, channels=channels)
    rng = np.random.default_rng(seed)
    sites = random_sites(rng, 60, GRID)
    features = rng.choice([-2.0, -1.0, 1.0, 2.0], (len(sites), channels)).astype(np.float16)
    features[::3] = 0
    with np.errstate(all="ignore"):
        expected = run_network(data, features, sites, 1, precision="fp32")
    assert all(np.isnan(value.values).any() for value in expected.outputs)
    return NanNetwork(data, features, sites, expected)


def assert_same_values(got: npt.ArrayLike, expected: npt.ArrayLike, what: str) -> None:
    """NaN in the same places, and the same numbers elsewhere: the sign and payload of NaN are free."""
    np.testing.assert_array_equal(np.asarray(got), np.asarray(expected), what)
