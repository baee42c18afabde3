# SPDX-License-Identifier: Apache-2.0
"""Networks whose dense map is larger than the grid of their sites."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from tests.oracle import builder, strategies
from tests.oracle.frames import random_sites

__all__ = ["LargerMap", "larger_map"]

Triple = tuple[int, int, int]
_GRID, _HALF = (7, 6, 9), (4, 3, 5)


@dataclass(frozen=True)
class LargerMap:
    """A file that is exported for a batch of 2, and a frame of that batch."""

    onnx: bytes
    features: npt.NDArray[np.float16]
    sites: npt.NDArray[np.int32]

    def of_batch(self, batch: int) -> bytes:
        """The same file, exported for another batch."""
        model = onnx.load_model_from_string(self.onnx)
        for attribute in model.graph.node[-1].attribute:
            if attribute.name == "output_shape":
                attribute.ints[0] = batch
        return model.SerializeToString()


def larger_map(
    seed: int,
    extra: Triple,
    channels: int,
    *,
    inputs: int = 4,
    precision: str | None = None,
    relu: bool = False,
    said: Triple | None = None,
) -> LargerMap:
    """A strided convolution whose map has `extra` more cells along each axis (z, y, x).

    It reads `inputs` channels. `precision` "int8" computes in int8; None in float16, exact for the powers of
    two that it holds. `relu`: in a node of its own. `said` is the input_spatial_shape that the file says
    instead.
    """
    rng = np.random.default_rng(seed)
    shape = [n + more for n, more in zip(_HALF, extra, strict=True)]
    weight = rng.choice([-1.0, 0.0, 0.5, 1.0], (channels, 3, 3, 3, inputs)).astype(np.float16)
    options: dict[str, Any] = {"precision": precision, "output_precision": precision and "fp16"}
    if precision == "int8":
        options |= {"input_range": 2.0, "weight_ranges": [1.0] * channels}
    pieces = [
        builder.convolution(
            "down", "features", "x", weight, input_shape=_GRID, output_shape=_HALF, stride=(2, 2, 2),
            padding=(1, 1, 1), **options,
        )
    ]  # fmt: skip
    if relu:
        pieces.append(builder.node("Relu", "relu", ["x"], "relu"))
    pieces.append(
        builder.node(
            "ScatterDense", "dense", ["relu" if relu else "x"], "dense", format="zyx",
            input_spatial_shape=list(said or shape), output_shape=[2, channels, *shape],
        )
    )  # fmt: skip
    sites = random_sites(rng, 150, _GRID, 2)
    features = strategies.features_for(rng, len(sites), inputs)
    return LargerMap(builder.build_onnx(*pieces), np.round(features * 4) / np.float16(4), sites)
