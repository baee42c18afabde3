# SPDX-License-Identifier: Apache-2.0
"""The grids of a file's sparse outputs."""

from __future__ import annotations

from typing import Any

from scn_fx.errors import OnnxError
from scn_fx.files.onnx_models import read_model

__all__ = ["output_shapes"]


def output_shapes(source: str | bytes) -> tuple[tuple[int, ...] | None, ...]:
    """For each output of a file the grid of its sites, as the file's indices count it; None if it is dense.

    Raises:
        OnnxError: nothing before an output says its grid.
    """
    file = read_model(source)
    makers = {name: node for node in file["nodes"] for name in node["outputs"]}
    return tuple(_shape(name, makers) for name in file["outputs"])


def _shape(output: str, makers: dict[str, dict[str, Any]]) -> tuple[int, ...] | None:
    name = output
    while name in makers:
        node = makers[name]
        if node["op_type"] in ("ScatterDense", "Reshape", "Transpose"):
            return None
        if "output_spatial_shape" in node["attributes"]:
            return tuple(int(n) for n in node["attributes"]["output_spatial_shape"])
        name = node["inputs"][0]  # whatever makes no sites keeps those of its first input
    raise OnnxError(
        f"No node before the output {output} says its grid (output_spatial_shape), so no sparse tensor can "
        "be made of it. Export the file with scn-fx."
    )
