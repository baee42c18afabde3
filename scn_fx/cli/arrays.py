# SPDX-License-Identifier: Apache-2.0
"""Frames and results of a command line: reading and writing .tensor, .npy and .npz files."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from scn_fx.errors import ArgumentError
from scn_fx.lidar import (
    GRIDS,
    embedded_frame,
    guess_format,
    read_points,
    read_tensor,
    voxelize,
    with_time_lag,
)
from scn_fx.lidar import write_tensor as _write_tensor

__all__ = ["InputFrame", "SavedResult", "load_frame", "read_result", "write_result"]

Array = npt.NDArray[Any]


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
    features: Path | None, indices: Path | None, points: Path | None, grid: str, point_format: str | None
) -> InputFrame:
    """The frame of the options; the synthetic one if none names a file.

    Raises ArgumentError for options that contradict each other, LidarError for files that hold no frame.
    """
    if points is not None and (features is not None or indices is not None):
        raise ArgumentError("Give either --points, or --features with --indices, not both.")
    if (features is None) != (indices is None):
        raise ArgumentError("--features and --indices belong together: give both files of the frame.")
    if features is not None and indices is not None:
        return InputFrame(features.name, _array(features), _array(indices))
    if points is None:
        frame = embedded_frame()
        return InputFrame(f"{frame.name} (no frame given)", frame.features, frame.indices)
    layout = point_format or guess_format(points)
    rows = read_points(points, layout)
    if layout == "nuscenes":  # the ring of a single sweep stands where networks read a time lag
        rows = with_time_lag(rows)
    voxels = voxelize(rows, GRIDS[grid])
    return InputFrame(points.name, voxels.features, voxels.indices)


def read_result(text: str) -> SavedResult:
    """The array that `text` names.

    `FILE.tensor`, `FILE.npy` or `FILE.npz` (its only array, or "dense", or "features" with "indices"),
    `FILE.npz:KEY`, or `FEATURES.tensor:INDICES.tensor` for sparse values, as libspconv's tool takes it.
    """
    first, colon, second = text.rpartition(":")
    if colon and not Path(text).exists():
        if first.endswith(".npz"):
            return SavedResult(_array(Path(first), second), None)
        partner = Path(second)
        if not partner.exists():  # libspconv's tool looks beside the first file
            partner = Path(first).parent / second
        return SavedResult(_array(Path(first)), _array(partner))
    path = Path(text)
    if path.suffix == ".npz":
        with _open_npz(path) as file:
            names = set(file.files)
            if {"features", "indices"} <= names:
                return SavedResult(file["features"], file["indices"])
    return SavedResult(_array(path), None)


def write_result(path: Path, result: Any) -> list[Path]:
    """Write an engine's result: a dense map, or (features, indices); returns the files.

    An .npz holds "dense", or "features" and "indices". A sparse result as .tensor makes two files.
    """
    sparse = isinstance(result, tuple)
    if path.suffix == ".npz":
        arrays = {"features": result[0], "indices": result[1]} if sparse else {"dense": result}
        np.savez_compressed(path, **arrays)
        return [path]
    if path.suffix == ".tensor":
        if not sparse:
            _write_tensor(path, result)
            return [path]
        files = [path.with_suffix(f".{what}.tensor") for what in ("features", "indices")]
        for file, array in zip(files, result, strict=True):
            _write_tensor(file, array)
        return files
    raise ArgumentError(f"--output must end in .npz or .tensor, got {str(path)!r}.")


def _array(path: Path, key: str | None = None) -> Array:
    if path.suffix == ".npz":
        with _open_npz(path) as file:
            names = list(file.files)
            chosen = key or ("dense" if "dense" in names else names[0] if len(names) == 1 else None)
            if chosen not in names:
                raise ArgumentError(
                    f"{path} holds {', '.join(names) or 'nothing'}; name one of them as {path}:KEY."
                )
            found: Array = file[chosen]
            return found
    if path.suffix == ".npy":
        if not path.is_file():
            raise ArgumentError(f"{path}: there is no such file.")
        try:
            loaded: Array = np.load(path, allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise ArgumentError(f"{path} is no complete .npy file: {error}.") from error
        return loaded
    if path.suffix == ".tensor":
        return read_tensor(path)
    raise ArgumentError(f"{path}: expected a .tensor, .npy or .npz file.")


def _open_npz(path: Path) -> Any:
    if not path.is_file():
        raise ArgumentError(f"{path}: there is no such file.")
    try:
        return np.load(path, allow_pickle=False)
    except Exception as error:  # zipfile, numpy and pickle errors, depending on where the damage is
        raise ArgumentError(f"{path} is no complete .npz file: {error}.") from error
