# SPDX-License-Identifier: Apache-2.0
"""What an ONNX file says about the voxels it takes."""

from __future__ import annotations

from typing import Any

from scn_fx.dimensions import in_zyx
from scn_fx.errors import LidarError, OnnxError
from scn_fx.files.onnx_models import read_model
from scn_fx.lidar.grids import VoxelGrid
from scn_fx.lidar.sites import NetworkGrid
from scn_fx.runtime.backend import Options

__all__ = ["file_grid"]

_AXES = ("zyx", "xyz")


def file_grid(options: Options) -> NetworkGrid:
    """The grid, the shape of the input and the order of its columns, as far as file or `options` say them.

    Raises:
        OnnxError: the file's entries about its grid are incomplete or damaged.
    """
    source = options.source
    name = "the file" if isinstance(source, bytes) else f"the file {source}"
    file = read_model(source)
    axes = file["metadata"].get("scn_fx.axes") or _scatter_axes(file)
    if axes not in _AXES:
        raise OnnxError(
            f"{name[0].upper()}{name[1:]} has damaged metadata: expected scn_fx.axes to be one of "
            f"{', '.join(_AXES)}, got {axes[:40]!r}. Export it again."
        )
    try:
        grid = VoxelGrid.from_text(file["metadata"])
    except LidarError as error:
        raise OnnxError(
            f"{name[0].upper()}{name[1:]} has damaged metadata about its voxel grid: {error} Export it again."
        ) from error
    shape = _input_shape(file) or options.spatial_shape
    ndim = int(file["metadata"].get("scn_fx.ndim", 3))  # an engine has read it: it is 1, 2 or 3
    if shape is None or len(shape) != 3:
        return NetworkGrid(name, grid, None, axes, ndim)
    return NetworkGrid(name, grid, in_zyx(shape, axes, ndim), axes, ndim)


def _scatter_axes(file: dict[str, Any]) -> str:
    """The order of the columns as a ScatterDense has it; without one "zyx", as libspconv takes it."""
    formats = [
        node["attributes"].get("format") for node in file["nodes"] if node["op_type"] == "ScatterDense"
    ]
    return formats[0] if formats and formats[0] in _AXES else "zyx"


def _input_shape(file: dict[str, Any]) -> list[int] | None:
    """Grid of the first convolution that reads the file's input."""
    for node in file["nodes"]:
        if set(node["inputs"]) & set(file["inputs"]) and "input_spatial_shape" in node["attributes"]:
            shape = node["attributes"]["input_spatial_shape"]
            return shape if isinstance(shape, list) else None  # engines refuse the latter
    return None
