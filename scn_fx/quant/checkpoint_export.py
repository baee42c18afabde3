# SPDX-License-Identifier: Apache-2.0
"""Ranges of a graph as a state dict of pytorch-quantization or modelopt modules: what `checkpoints` reads.

Both keep a range as the buffer `_amax` of a quantizer: a scalar for an input, [out, 1, 1, 1, 1] for a weight
in spconv 2.x's layout. pytorch-quantization calls the quantizers of a layer `_input_quantizer` and
`_weight_quantizer`; modelopt's converted modules call them `input_quantizer` and `weight_quantizer`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from scn_fx.errors import CalibrationError
from scn_fx.files.atomic import write_file
from scn_fx.quant.ranges import LayerRanges, quantizable, read_ranges

if TYPE_CHECKING:
    from torch.fx import GraphModule

    from scn_fx.graph import Layer

__all__ = ["ADD_STYLES", "LAYOUTS", "save_pytorch_quantization"]

LAYOUTS = {"pytorch-quantization": "_", "modelopt": ""}
"""What precedes the names of quantizers in each."""

ADD_STYLES = ("shared", "largest", "two")


def save_pytorch_quantization(
    graph: GraphModule,
    path: str | os.PathLike[str] | None = None,
    *,
    layout: str = "pytorch-quantization",
    prefix: str = "",
    adds: str = "shared",
    add_name: str | None = "quant_add",
) -> dict[str, torch.Tensor]:
    """The ranges of `graph` as quantizer buffers, float32 on the CPU; also written to `path` if it is given.

    `quant.load_pytorch_quantization` reads them back bit for bit. A model takes them with
    ``load_state_dict(state, strict=False)``, for weights are not among them; modelopt's quantizers must have
    been calibrated once, or they have no buffer to load into.

    Args:
        graph: a graph with ranges; layers without any are left out.
        path: a file for `torch.load(path, weights_only=True)`.
        layout: "pytorch-quantization" (`<layer>._input_quantizer._amax`) or "modelopt"
            (`<layer>.input_quantizer._amax`).
        prefix: what precedes the graph's layer names in the model ("backbone.").
        adds: a residual Add has one quantizer for both operands in the public scripts of CenterPoint and
            BEVFusion, `<block>.quant_add._input_quantizer`. "shared" writes that, and refuses an Add whose
            two ranges differ; "largest" writes the larger one, under which nothing clips that did not before;
            "two" writes `_input0_quantizer` and `_input1_quantizer`, for modules of one's own.
        add_name: name of the Add's module in its block; None takes the Add's own name in the graph
            ("conv1.0.add").

    Raises CalibrationError for a graph without ranges, an unknown layout or style, Adds whose ranges one
    quantizer cannot hold, two Adds of one block; WriteError if the file cannot be written.
    """
    if layout not in LAYOUTS:
        raise CalibrationError(f"Unknown layout {layout!r}; expected one of {', '.join(LAYOUTS)}.")
    if adds not in ADD_STYLES:
        raise CalibrationError(f"Unknown adds={adds!r}; expected one of {', '.join(ADD_STYLES)}.")
    if prefix and not prefix.endswith("."):
        prefix += "."
    found = {layer: ranges for layer in quantizable(graph) if (ranges := read_ranges(layer)) is not None}
    if not found:
        raise CalibrationError("The graph has no ranges to save. Calibrate it first (quant.calibrate).")
    if adds == "shared":
        _check_shared(found)
    mark = LAYOUTS[layout]
    state: dict[str, torch.Tensor] = {}
    owners: dict[str, str] = {}
    for layer, ranges in found.items():
        if layer.spec.weighted:
            entries = _convolution(layer, ranges, f"{prefix}{layer.name}", mark)
        else:
            entries = _add(ranges, f"{prefix}{_add_module(layer.name, add_name)}", mark, adds)
        for key, value in entries.items():
            if key in state:
                raise CalibrationError(
                    f"{owners[key]} and {layer.name} would both be {key}. With add_name=None each Add is a "
                    "module of its own name."
                )
            state[key], owners[key] = value, layer.name
    if path is not None:
        write_file(Path(path), lambda file: torch.save(state, file))
    return state


def _convolution(layer: Layer, ranges: LayerRanges, module: str, mark: str) -> dict[str, torch.Tensor]:
    assert ranges.weight is not None
    return {
        f"{module}.{mark}input_quantizer._amax": _scalar(ranges.inputs[0]),
        f"{module}.{mark}weight_quantizer._amax": torch.tensor(ranges.weight).reshape(-1, 1, 1, 1, 1),
    }


def _add(ranges: LayerRanges, module: str, mark: str, adds: str) -> dict[str, torch.Tensor]:
    if adds == "two":
        return {
            f"{module}.{mark}input{i}_quantizer._amax": _scalar(amax) for i, amax in enumerate(ranges.inputs)
        }
    return {f"{module}.{mark}input_quantizer._amax": _scalar(max(ranges.inputs))}


def _add_module(name: str, add_name: str | None) -> str:
    block, dot, _ = name.rpartition(".")
    return name if add_name is None else f"{block}{dot}{add_name}"


def _scalar(amax: float) -> torch.Tensor:
    return torch.tensor(amax, dtype=torch.float32)


def _check_shared(found: dict[Layer, LayerRanges]) -> None:
    different = [
        f"{layer.name} ({ranges.inputs[0]:.6g} and {ranges.inputs[1]:.6g})"
        for layer, ranges in found.items()
        if layer.spec.adds and ranges.inputs[0] != ranges.inputs[1]
    ]
    if different:
        raise CalibrationError(
            f"One quantizer for both operands of an Add cannot hold two different ranges: "
            f"{', '.join(different[:5])}{', ...' if len(different) > 5 else ''}. Say adds='largest' to keep "
            "the larger of the two, or adds='two' for a quantizer of each operand."
        )
