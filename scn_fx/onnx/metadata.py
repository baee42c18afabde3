# SPDX-License-Identifier: Apache-2.0
"""What an exported file records about its making, and about the frames it takes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scn_fx import __version__
from scn_fx.errors import ExportError
from scn_fx.files.atomic import write_file
from scn_fx.files.onnx_models import ONNX_FILE, read_model
from scn_fx.files.reading import read_file
from scn_fx.lidar.grids import VoxelGrid
from scn_fx.operators.dialects import LIBSPCONV, check_dialect

if TYPE_CHECKING:
    from torch import fx

__all__ = ["DOC", "metadata_entries", "write_metadata"]

DOC = (
    "A sparse convolution network for LiDAR, written by scn-fx. Its input holds the features of the occupied "
    "voxels, float16 or float32 [voxels, channels]. Their indices, int32 [voxels, 1 + dimensions] with the "
    "sample first, are passed to the engine beside the file's input; nodes find neighbours by them. Nodes "
    "are called as the modules of the model, and edges as the nodes that make them."
)
"""What files say of themselves: viewers of ONNX show it."""


def metadata_entries(meta: Mapping[str, Any], dialect: str) -> dict[str, str]:
    """The ``metadata_props`` of a file, from the "scn_fx" metadata of the captured graph.

    Keys: scn_fx.version, scn_fx.dialect, scn_fx.axes ("zyx" or "xyz"); scn_fx.ndim ("1" or "2") for a network
    of fewer than three dimensions; where it is known, scn_fx.model (a name or import path),
    scn_fx.checkpoint (the file's name) and scn_fx.checkpoint.sha256; for a calibrated graph,
    scn_fx.calibration.method and scn_fx.calibration.frames; for a graph that knows its voxel grid, those of
    `scn_fx.lidar.VoxelGrid.to_text`.
    """
    entries = {"scn_fx.version": __version__, "scn_fx.dialect": dialect, "scn_fx.axes": str(meta["axes"])}
    ndim = int(meta.get("ndim", 3))
    if ndim != 3:
        entries["scn_fx.ndim"] = str(ndim)
    if meta.get("model"):
        entries["scn_fx.model"] = str(meta["model"])
    checkpoint = meta.get("checkpoint")
    if checkpoint:
        entries["scn_fx.checkpoint"] = str(checkpoint["file"])
        entries["scn_fx.checkpoint.sha256"] = str(checkpoint["sha256"])
    calibration = meta.get("calibration")
    if calibration:
        entries["scn_fx.calibration.method"] = str(calibration["method"])
        entries["scn_fx.calibration.frames"] = str(calibration["frames"])
    grid = meta.get("grid")
    if grid:
        entries.update(VoxelGrid.from_dict(grid).to_text())
    return entries


def write_metadata(path: str | Path, graph: fx.GraphModule, dialect: str = LIBSPCONV) -> None:
    """Add the metadata of `graph` and `DOC` to the ONNX file at `path` that was exported from it, in place.

    `dialect` is the one that it was exported in.

    For files of ``torch.onnx.export(dynamo=False)``, which has no place for metadata; those of the dynamo
    exporter have it already. Everything else in the file stays the same, byte for byte: a protobuf message
    may be continued behind its end. The file appears complete or not at all.

    Raises:
        ExportError: the file says something else under one of the keys, so it is of another graph.
        OnnxError: it is no ONNX file.
        WriteError: it cannot be written.
    """
    import onnx

    from scn_fx.graph import metadata

    check_dialect(dialect)
    data = read_file(path, ONNX_FILE)
    there: Mapping[str, str] = read_model(data, path)["metadata"]
    entries = metadata_entries(metadata(graph), dialect)
    wrong = [key for key, value in entries.items() if there.get(key, value) != value]
    if wrong:
        raise ExportError(
            f"{path} says {wrong[0]} = {there[wrong[0]]!r} already, this graph {entries[wrong[0]]!r}. Name "
            "the file that was exported from this graph."
        )
    missing = {key: value for key, value in entries.items() if key not in there}
    if not missing:
        return  # they are written together with DOC
    addition = onnx.ModelProto(doc_string=DOC)
    for key, value in missing.items():
        addition.metadata_props.add(key=key, value=value)
    write_file(path, data + addition.SerializeToString())
