# SPDX-License-Identifier: Apache-2.0
"""Checks that a calibration frame is what the graph takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.fx import GraphModule

from scn_fx.dimensions import index_text, width_advice
from scn_fx.errors import CalibrationError, NonFiniteError
from scn_fx.graph import layers, metadata
from scn_fx.input_grid import network_grid
from scn_fx.lidar import Frame, NetworkGrid, Voxels

__all__ = ["InputSpec", "check_frame", "input_spec", "readable", "round_features"]


@dataclass(frozen=True)
class InputSpec:
    """What a graph takes: inputs in order, which are features and indices, feature width, voxel grid."""

    names: tuple[str, ...]
    features: int
    indices: int
    channels: int | None
    grid: NetworkGrid


def input_spec(graph: GraphModule) -> InputSpec:
    """The inputs of a captured graph; the width comes from the first convolution that reads the features."""
    nodes = [node for node in graph.graph.nodes if node.op == "placeholder"]
    names = [node.name for node in nodes]
    meta = metadata(graph)
    features = names.index(meta["features"])
    widths = [
        layer.weight.shape[-1]
        for layer in layers(graph)
        if layer.spec.weighted and layer.inputs[0] is nodes[features]
    ]
    indices = names.index(meta["indices"])
    return InputSpec(tuple(names), features, indices, int(widths[0]) if widths else None, network_grid(graph))


def check_frame(frame: Sequence[Any], spec: InputSpec, number: int) -> list[torch.Tensor]:
    """The tensors of a frame, if it is one that the graph takes.

    Raises CalibrationError naming what was expected and what came, NonFiniteError for NaN or infinite
    features, GridError for a frame that is known to be voxelised in another grid than the graph's.
    """
    where = f"Frame {number} (counted from 0)"
    spec.grid.check(frame, where)
    if isinstance(frame, Voxels | Frame):
        frame = tuple(frame)
    wanted = f"a tuple of {len(spec.names)} tensors ({', '.join(spec.names)})"
    if not isinstance(frame, tuple | list):
        raise CalibrationError(f"{where}: expected {wanted}, got a {type(frame).__name__}.")
    if len(frame) != len(spec.names):
        raise CalibrationError(f"{where}: expected {wanted}, got {len(frame)} values.")
    try:
        tensors = [torch.as_tensor(readable(value)) for value in frame]
    except (TypeError, ValueError, RuntimeError) as error:
        raise CalibrationError(f"{where}: expected {wanted}; a value is no tensor: {error}") from error
    features, indices = tensors[spec.features], tensors[spec.indices]
    _check_shapes(features, indices, spec, where)
    finite = features.isfinite()
    if not bool(finite.all()):
        rows = int((~finite).any(dim=1).sum())
        row, column = (~finite).nonzero()[0].tolist()
        raise NonFiniteError(
            f"{where}: {spec.names[spec.features]} holds NaN or infinite values in {rows} of "
            f"{len(features)} rows, first in row {row}, column {column}. Drop such points before "
            "voxelisation."
        )
    return tensors


def readable(value: Any) -> Any:
    """Numpy arrays as torch takes them: native byte order, no negative strides, writable."""
    if not isinstance(value, np.ndarray) or value.dtype.names or np.ma.isMaskedArray(value):
        return value
    native = np.asarray(value, value.dtype.newbyteorder("="))
    return native if native.flags.writeable and min(native.strides, default=0) >= 0 else native.copy()


def round_features(tensors: list[torch.Tensor], spec: InputSpec, number: int) -> list[torch.Tensor]:
    """The tensors with the features rounded to float16, as the engine rounds them, and widened to float32.

    Raises NonFiniteError if a feature does not fit in float16.
    """
    features = tensors[spec.features]
    rounded = features.half().float()
    finite = rounded.isfinite()
    if not bool(finite.all()):
        row, column = (~finite).nonzero()[0].tolist()
        raise NonFiniteError(
            f"Frame {number} (counted from 0): {spec.names[spec.features]} holds a value of magnitude "
            f"{float(features.abs().max()):.6g}, which does not fit in float16 (at most 65504), first in row "
            f"{row}, column {column}. Rescale the features."
        )
    result = list(tensors)
    result[spec.features] = rounded
    return result


def _check_shapes(features: torch.Tensor, indices: torch.Tensor, spec: InputSpec, where: str) -> None:
    name, index_name = spec.names[spec.features], spec.names[spec.indices]
    width = "C" if spec.channels is None else str(spec.channels)
    if not features.is_floating_point() or features.dim() != 2:
        batched = features.is_floating_point() and features.dim() == 3 and len(features) == 1
        raise CalibrationError(
            f"{where}: {name} must be float16 or float32 [N, {width}], got {features.dtype} "
            f"{list(features.shape)}."
            + " If a DataLoader adds the first axis, give it batch_size=None."
            * batched
        )
    if spec.channels is not None and features.shape[1] != spec.channels:
        raise CalibrationError(
            f"{where}: {name} must have {spec.channels} channels, the width of the first convolution, got "
            f"{features.shape[1]} (shape {list(features.shape)})."
        )
    ndim, axes = spec.grid.ndim, spec.grid.axes
    if indices.dtype != torch.int32 or indices.dim() != 2 or indices.shape[1] != ndim + 1:
        columns = int(indices.shape[1]) if indices.dim() == 2 else 0
        raise CalibrationError(
            f"{where}: {index_name} must be int32 {index_text(ndim, axes)}, got {indices.dtype} "
            f"{list(indices.shape)}.{width_advice(ndim, axes, columns)}"
        )
    if len(features) != len(indices):
        raise CalibrationError(
            f"{where}: {name} has {len(features)} rows and {index_name} {len(indices)}; each site needs one "
            "of each."
        )
