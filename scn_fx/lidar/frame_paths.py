# SPDX-License-Identifier: Apache-2.0
"""Which files are frames: those of a folder and the folders in it, those that a list names, or one alone."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Iterator
from itertools import islice, takewhile
from pathlib import Path
from typing import Any

import numpy.typing as npt

from scn_fx.errors import LidarError
from scn_fx.files.arrays import open_npz, read_npy
from scn_fx.files.json_text import TextError, decoded
from scn_fx.files.reading import FileKind, read_file
from scn_fx.lidar.tensor_file import read_tensor

__all__ = ["FRAME_SYNTAX", "LIST_SUFFIXES", "frame_paths", "read_voxels"]

FRAME_SYNTAX = (
    "points (.bin, .tensor, .pcd, .npy, .npz), or voxels (NAME.features.tensor beside NAME.indices.tensor, "
    "the same as .npy, NAME.voxels beside NAME.coors, or an .npz of features and indices)"
)
"""What a frame file may be, for messages and help texts."""

LIST_SUFFIXES = (".txt", ".lst", ".list")

_POINTS = (".bin", ".tensor", ".pcd", ".npy", ".npz")
_VOXEL_ARRAYS = (("features", "indices"), ("voxels", "coors"))
_LIST = FileKind(LidarError, 64 << 20, "a list of frame files", pipes=True)

Paths = tuple[Path, ...]


def frame_paths(path: str | Path, *, subfolders: bool = True) -> list[Paths]:
    """The frames at `path`: for each its point file alone, or its feature and index file.

    A folder gives the frame files in it and, with `subfolders`, in the folders below (not those whose name
    begins with a point), sorted by path; an `.npz` of several arrays, none of them `points` or a pair of
    voxels, is something else. A `.txt`, `.lst` or `.list` file names one frame file or folder a
    line, relative to its own folder, in the order to take; lines that are empty or begin with # do not count.
    Any other file is one frame. Voxels in one `.npz` are that file twice.

    Raises LidarError if there is nothing, a folder cannot be listed, half of a pair is missing, or a list
    names what is not there.
    """
    root = Path(path)
    if not os.path.exists(root):
        raise LidarError(f"{root}: expected a frame file or a folder of them, but there is nothing.")
    found = list(_found(root, subfolders, _Listings()))
    if not found:
        raise LidarError(f"{root}: expected frames as {FRAME_SYNTAX}, found none.")
    return found


def read_voxels(files: Paths) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Features and indices of a voxelised frame, as its files hold them. Raises LidarError."""
    first, second = files
    if first == second:
        with open_npz(first, LidarError) as archive:
            pair = _voxel_arrays(archive.names)
            assert pair is not None, first
            return archive[pair[0]], archive[pair[1]]
    read = _read_npy if first.suffix == ".npy" else read_tensor
    return read(first), read(second)


def _read_npy(path: Path) -> npt.NDArray[Any]:
    """The array of a `.npy` file. Raises LidarError."""
    return read_npy(path, LidarError)


class _Listings:
    """Names in folders, sorted; each folder is listed once."""

    def __init__(self) -> None:
        self._known: dict[Path, list[str]] = {}

    def names(self, folder: Path) -> list[str]:
        if folder not in self._known:
            try:
                self._known[folder] = sorted(os.listdir(folder))
            except OSError as error:
                raise LidarError(
                    f"{folder}: expected a folder that can be listed, got: {error.strerror}. Check its "
                    "permissions."
                ) from error
        return self._known[folder]

    def beginning(self, path: Path) -> list[str]:
        """The names beside `path` that begin with its name."""
        names = self.names(path.parent)
        rest = islice(names, bisect_left(names, path.name), None)
        return list(takewhile(lambda name: name.startswith(path.name), rest))


def _found(root: Path, subfolders: bool, listings: _Listings) -> Iterator[Paths]:
    if os.path.isdir(root):
        for file in _files(root, subfolders, listings):
            if file.suffix in (*_POINTS, ".voxels") and not (file.suffix == ".npz" and _is_other(file)):
                yield from _frame(file, listings)
    elif root.suffix in LIST_SUFFIXES:
        for file in _listed(root):
            yield from _found(file, subfolders, listings)
    else:
        yield from _frame(root, listings)


def _files(root: Path, subfolders: bool, listings: _Listings) -> Iterator[Path]:
    """The files of a folder, then those of each folder in it; links are followed, but nothing comes twice."""
    waiting, seen = [root], set()
    while waiting:
        folder = waiting.pop(0)
        real = os.path.realpath(folder)
        if real in seen:
            continue
        seen.add(real)
        inner = []
        for name in listings.names(folder):
            path = folder / name
            if not os.path.isdir(path):
                yield path
            elif subfolders and not name.startswith("."):
                inner.append(path)
        waiting[:0] = inner


def _listed(path: Path) -> Iterator[Path]:
    try:
        lines = decoded(read_file(path, _LIST)).splitlines()
    except TextError as error:
        raise LidarError(f"{path}: expected a list with a frame file in each line; {error}.") from error
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        file = path.parent / text
        if "\0" in text or not os.path.exists(file):
            raise LidarError(
                f"{path}, line {number}: expected a frame file or folder, but there is no {str(file)!r}. "
                "Paths are relative to the list's folder: correct the line, or put # before it."
            )
        if file.suffix in LIST_SUFFIXES:
            raise LidarError(
                f"{path}, line {number}: expected a frame file or folder, got another list, {text!r}. Write "
                "its lines here."
            )
        yield file


def _frame(file: Path, listings: _Listings) -> Iterator[Paths]:
    """The frame that a file is or begins; none for one that belongs to another."""
    if file.suffix == ".voxels":
        partner = file.with_suffix(".coors")
        if not os.path.exists(partner):
            raise LidarError(f"{file}: expected {partner.name} beside it, found none. Put both files there.")
        yield file, partner
        return
    stem, _, kind = file.stem.rpartition(".")
    if kind == "features" and file.suffix in (".tensor", ".npy"):
        yield file, _partner(file, stem, listings)
    elif file.suffix == ".npz" and _is_voxels(file):
        yield file, file
    elif not _names_indices(file.name) and file.suffix != ".coors":
        yield (file,)


def _partner(features: Path, stem: str, listings: _Listings) -> Path:
    start = f"{stem}.indices" if stem else "indices"
    beside = listings.beginning(features.with_name(start))
    found = [name for name in beside if Path(name).suffix == features.suffix]
    if len(found) != 1:
        raise LidarError(
            f"{features}: expected one file {start}*{features.suffix} beside it, found "
            f"{', '.join(found) or 'none'}."
        )
    return features.with_name(found[0])


def _names_indices(name: str) -> bool:
    return any(part.startswith("indices") for part in name.split("."))


def _is_voxels(file: Path) -> bool:
    with open_npz(file, LidarError) as archive:
        return _voxel_arrays(archive.names) is not None


def _is_other(file: Path) -> bool:
    """Whether an archive is no frame: results, labels and the like lie beside frames."""
    with open_npz(file, LidarError) as archive:
        names = archive.names
    return _voxel_arrays(names) is None and "points" not in names and len(names) != 1


def _voxel_arrays(names: list[str]) -> tuple[str, str] | None:
    return next((pair for pair in _VOXEL_ARRAYS if set(pair) <= set(names)), None)
