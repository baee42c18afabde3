# SPDX-License-Identifier: Apache-2.0
"""Frames and results of a command line: reading and writing .tensor, .npy and .npz files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from scn_fx.errors import ArgumentError, GridError
from scn_fx.files.arrays import ArrayArchive, open_npz, read_npy
from scn_fx.files.atomic import write_file, write_files
from scn_fx.lidar import (
    CENTERPOINT_GRID,
    NetworkGrid,
    VoxelGrid,
    embedded_frame,
    read_sweep,
    read_tensor,
    synthetic_points,
    voxelize,
    voxelize_from,
)
from scn_fx.lidar.tensor_file import tensor_writer

__all__ = [
    "InputFrame",
    "SavedResult",
    "load_frame",
    "read_result",
    "synthetic_frame",
    "write_result",
    "write_results",
]

Array = npt.NDArray[Any]

_PARTS = ("features", "indices")


class InputFrame(NamedTuple):
    """A frame to run: where it comes from, features [N, C], indices int32 [N, 4]."""

    name: str
    features: Array
    indices: Array


class SavedResult(NamedTuple):
    """What a file holds: values, and the sites of their rows if they are sparse."""

    values: Array
    indices: Array | None


def load_frame(
    features: Path | None,
    indices: Path | None,
    points: Path | None,
    frames: Path | None,
    grid: VoxelGrid | None,
    point_format: str | None,
    network: NetworkGrid,
) -> InputFrame:
    """The frame of the options, for `network`; the first of `frames`; the synthetic one if none names any.

    Points are voxelised in the network's grid, or in `grid` where it says none. Raises ArgumentError for
    options that contradict each other, LidarError for files that hold no frame, GridError for a grid that is
    not the network's.
    """
    if points is not None and (features is not None or indices is not None):
        raise ArgumentError("Give either --points, or --features with --indices, not both.")
    if frames is not None and (points is not None or features is not None or indices is not None):
        raise ArgumentError("Give either --frames, or one frame with --points or --features, not both.")
    if (features is None) != (indices is None):
        raise ArgumentError("--features and --indices belong together: give both files of the frame.")
    if points is None and frames is None and point_format is not None:
        raise ArgumentError("--format is that of a point file: give --points as well, or leave it out.")
    if grid is not None:
        network.require(grid, "--grid")
    if features is not None and indices is not None:
        return InputFrame(features.name, _named(features), _named(indices))
    if frames is not None:
        from scn_fx.quant.frame_source import find_frames

        found = find_frames(frames, point_format=point_format, limit=1).for_network(network, grid)
        first = next(iter(found), None)
        if first is None:
            raise ArgumentError(f"--frames {frames} gives no frame. Run one at least.")
        return InputFrame(f"the first of {frames}", *(_numbers(part) for part in first))
    if points is None:
        return synthetic_frame(network)
    rows = read_sweep(points, point_format)
    voxels = voxelize_from(points, rows, network.require(grid, "--grid"))
    return InputFrame(points.name, voxels.features, network.columns(voxels.indices))


def synthetic_frame(network: NetworkGrid) -> InputFrame:
    """The synthetic frame in the network's grid; one that is not known must have CenterPoint's shape."""
    if network.grid is None or network.grid.same_voxels(CENTERPOINT_GRID):
        frame = embedded_frame()
        try:
            network.check_grid(frame.grid, "The synthetic frame is voxelised in")
        except GridError as error:
            raise GridError(
                f"{error} Or give a frame: --points FILE, or --features with --indices."
            ) from error
        features, indices = frame
    else:
        features, indices = voxelize(synthetic_points(), network.grid)
    return InputFrame("synthetic (no frame given)", features, network.columns(indices))


def read_result(text: str) -> SavedResult:
    """The array that `text` names.

    `FILE.tensor`, `FILE.npy` or `FILE.npz` (its only array, or "dense", or "features" with "indices"),
    `FILE.npz:KEY` (an array, or one of several outputs: "output1"), or `FEATURES.tensor:INDICES.tensor` for
    sparse values, as libspconv's tool takes it.
    """
    first, colon, second = text.rpartition(":")
    if colon and not os.path.exists(text):
        if first.endswith(".npz"):
            pair = [f"{second}.{part}" for part in _PARTS]
            with open_npz(Path(first), ArgumentError) as file:
                if set(pair) <= set(file.names):
                    return SavedResult(file[pair[0]], file[pair[1]])
            return SavedResult(_array(Path(first), second), None)
        partner = Path(second)
        if not os.path.exists(partner):  # libspconv's tool looks beside the first file
            partner = Path(first).parent / second
        return SavedResult(_array(Path(first)), _array(partner))
    path = Path(text)
    if path.suffix == ".npz":
        with open_npz(path, ArgumentError) as file:
            names = set(file.names)
            if {"features", "indices"} <= names:
                if "dense" in names:
                    raise ArgumentError(
                        f"{path} holds a sparse result (features, indices) and a dense one. Name the dense "
                        f"one as {path}:dense, or save the two in files of their own."
                    )
                return SavedResult(file["features"], file["indices"])
            return SavedResult(_chosen(file, path, None), None)
    return SavedResult(_array(path), None)


def write_result(path: Path, result: Any) -> list[Path]:
    """Write an engine's result: a dense map, or (features, indices); returns the files.

    An .npz holds "dense", or "features" and "indices". A sparse result as .tensor makes two files. They
    appear complete or not at all; raises WriteError when they cannot be written.
    """
    sparse = isinstance(result, tuple)
    if path.suffix == ".npz":
        arrays = {"features": result[0], "indices": result[1]} if sparse else {"dense": result}

        def write(file: BinaryIO) -> None:
            np.savez_compressed(file, **arrays)

        write_file(path, write)
        return [path]
    if path.suffix == ".tensor":
        parts = ("features", "indices") if sparse else ()
        files = [path.with_suffix(f".{part}.tensor") for part in parts] or [path]
        found = result if sparse else [result]
        write_files({file: tensor_writer(file, array) for file, array in zip(files, found, strict=True)})
        return files
    raise ArgumentError(f"--output must end in .npz or .tensor, got {str(path)!r}.")


def write_results(path: Path, results: Mapping[str, Any]) -> list[Path]:
    """Write the outputs of an engine by name; one alone as `write_result` does. Returns the files.

    Several make one .npz that holds NAME, or NAME.features and NAME.indices, for each; as .tensor a file of
    its own for each array, such as STEM.NAME.features.tensor. They appear complete or not at all.
    """
    if len(results) == 1:
        return write_result(path, *results.values())
    arrays: dict[str, Array] = {}
    for name, result in results.items():
        if isinstance(result, tuple):
            arrays.update({f"{name}.{part}": array for part, array in zip(_PARTS, result, strict=True)})
        else:
            arrays[name] = result
    if path.suffix == ".npz":

        def write(file: BinaryIO) -> None:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]

        write_file(path, write)
        return [path]
    files = {path.with_suffix(f".{name}.tensor"): array for name, array in arrays.items()}
    write_files({file: tensor_writer(file, array) for file, array in files.items()})
    return list(files)


def _numbers(part: Any) -> Array:
    """A part of a frame as an array; the user's own code may give torch tensors."""
    found: Array = part.detach().cpu().numpy() if hasattr(part, "detach") else part
    return found


def _named(path: Path) -> Array:
    """The array of a file, or of `FILE.npz:KEY`."""
    name, _, key = str(path).rpartition(":")
    return _array(Path(name), key) if name.endswith(".npz") else _array(path)


def _array(path: Path, key: str | None = None) -> Array:
    if path.suffix == ".npz":
        with open_npz(path, ArgumentError) as file:
            return _chosen(file, path, key)
    if path.suffix == ".npy":
        return read_npy(path, ArgumentError)
    if path.suffix == ".tensor":
        return read_tensor(path)
    raise ArgumentError(f"{path}: expected a .tensor, .npy or .npz file.")


def _chosen(file: ArrayArchive, path: Path, key: str | None) -> Array:
    """The array `key` of an archive; without a key "dense", or the only one."""
    names = file.names
    chosen = key or ("dense" if "dense" in names else names[0] if len(names) == 1 else None)
    if chosen is None or chosen not in names:
        there = ", ".join(name[:60] for name in names[:20]) + (", ..." if len(names) > 20 else "")
        raise ArgumentError(f"{path} holds {there or 'nothing'}; name one of them as {path}:KEY.")
    return file[chosen]
