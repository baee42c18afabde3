# SPDX-License-Identifier: Apache-2.0
"""Voxel grids from words: a preset's name, nine numbers, or a YAML or JSON file."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scn_fx.errors import LidarError, MissingPackageError
from scn_fx.files.json_text import TextError, parse_json
from scn_fx.files.reading import FileKind, read_file
from scn_fx.lidar.grids import GRIDS, VoxelGrid

__all__ = ["GRID_SYNTAX", "parse_grid", "read_grid"]

GRID_SYNTAX = (
    f"a preset ({', '.join(GRIDS)}), nine numbers X0,Y0,Z0,X1,Y1,Z1,VX,VY,VZ (range and voxel size in "
    "metres), or a YAML or JSON file with a range and a voxel size"
)
"""What `parse_grid` takes, for messages and help texts."""

_RANGES = ("point_range", "point_cloud_range", "POINT_CLOUD_RANGE")
_SIZES = ("voxel_size", "VOXEL_SIZE")
_OPTIONS = ("extra_z", "arithmetic", "max_points")
_SUFFIXES = (".json", ".yaml", ".yml")
_MOST_BASES = 8
_GRID_FILE = FileKind(LidarError, 1 << 20)
"""1 MiB: configurations have some kilobytes, and PyYAML reads 100 KB a second."""


def parse_grid(text: str) -> VoxelGrid:
    """The grid that `text` names: a preset of `GRIDS`, nine numbers, or a file (see `read_grid`).

    The numbers are the lower corner, the upper corner and the voxel's edges (each x, y, z, in metres),
    separated by commas, colons or spaces. Raises LidarError for anything else, and for numbers that are no
    grid.
    """
    name = text.strip()
    if name.lower() in GRIDS:
        return GRIDS[name.lower()]
    words = [word for word in re.split(r"[\s,;:\[\]()]+", name) if word]
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        numbers = []
    if words and numbers:
        if len(numbers) != 9:
            raise LidarError(
                f"A grid in numbers has nine of them, X0,Y0,Z0,X1,Y1,Z1,VX,VY,VZ, got {len(numbers)}: "
                f"{text!r}. KITTI's, for example, is 0,-40,-3,70.4,40,1,0.05,0.05,0.1."
            )
        return VoxelGrid((*numbers[:6],), (*numbers[6:],))  # type: ignore[arg-type]  # checked there
    path = Path(name)
    if name and (path.suffix.lower() in _SUFFIXES or os.path.isfile(path)):
        return read_grid(path)
    raise LidarError(f"Expected a grid as {GRID_SYNTAX}, got {text!r}.")


def read_grid(path: str | Path) -> VoxelGrid:
    """The grid of a YAML (`.yaml`, `.yml`) or JSON (`.json`) file.

    Either a file of its own, with `point_range` (six numbers), `voxel_size` (three), and optionally
    `extra_z`, `arithmetic` and `max_points` as `VoxelGrid` has them, and nothing else; or a configuration
    that says `point_cloud_range` and `voxel_size` at its top (any other keys are its own affair); or one of
    OpenPCDet's, a model's or a dataset's: POINT_CLOUD_RANGE, and VOXEL_SIZE with MAX_POINTS_PER_VOXEL in
    DATA_PROCESSOR. Its `_BASE_CONFIG_` is looked for beside the file and above it. Ranges of configurations
    are rounded to whole voxels as their code does (`VoxelGrid.rounded`).

    Raises:
        LidarError: no file, a damaged one, or one without exactly one range and voxel size.
        MissingPackageError: a YAML file, but PyYAML is not installed.
    """
    path = Path(path)
    content = _load(path)
    if "point_range" in content:
        known = ("point_range", "voxel_size", *_OPTIONS)
        wrong = [str(key) for key in content if key not in known]
        if wrong or "voxel_size" not in content:
            raise LidarError(
                f"{path}: expected point_range and voxel_size, with {', '.join(_OPTIONS)} if wanted, got "
                f"{_some(content)}."
            )
        return _made(path, VoxelGrid, content["point_range"], content)
    settings = _settings(path, content)
    found = _one(path, settings, _RANGES[1:])
    sizes = _voxel_settings(path, settings)
    _one(path, sizes, _SIZES)
    return _made(path, VoxelGrid.rounded, found, sizes)


def _made(path: Path, make: Any, point_range: Any, settings: Mapping[str, Any]) -> VoxelGrid:
    options = {name: settings[name] for name in _OPTIONS if settings.get(name) is not None}
    if settings.get("MAX_POINTS_PER_VOXEL") is not None:
        options["max_points"] = settings["MAX_POINTS_PER_VOXEL"]
    size = next(settings[name] for name in _SIZES if name in settings)
    try:
        grid: VoxelGrid = make(point_range, size, **options)
    except LidarError as error:
        raise LidarError(f"{path}: {error}") from error
    return grid


def _settings(path: Path, content: Mapping[str, Any], level: int = 0) -> Mapping[str, Any]:
    """The part of a configuration that is about data, merged over the base that it names."""
    if level > _MOST_BASES:
        raise LidarError(
            f"{path}: expected at most {_MOST_BASES} configurations that name each other as _BASE_CONFIG_, "
            "got "
            "more, or a circle of them. Name the file that has the range."
        )
    nested = content.get("DATA_CONFIG")
    settings: Mapping[str, Any] = nested if isinstance(nested, Mapping) else content
    base = settings.get("_BASE_CONFIG_")
    if not isinstance(base, str):
        return settings
    there = [folder / base for folder in path.absolute().parents if os.path.isfile(folder / base)]
    if there:
        return {**_settings(there[0], _load(there[0]), level + 1), **settings}
    if any(name in settings for name in _RANGES) and "DATA_PROCESSOR" in settings:
        return settings
    raise LidarError(
        f"{path} takes its range or voxel size from {base!r}, which is neither beside it nor in a folder "
        f"above it. Name that file, or give the nine numbers X0,Y0,Z0,X1,Y1,Z1,VX,VY,VZ."
    )


def _voxel_settings(path: Path, settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """The settings that hold the voxel size: those at the top, or one step of OpenPCDet's DATA_PROCESSOR."""
    if any(name in settings for name in _SIZES):
        return settings
    steps = settings.get("DATA_PROCESSOR")
    steps = steps if isinstance(steps, list) else []
    found = [step for step in steps if isinstance(step, Mapping) and "VOXEL_SIZE" in step]
    if len(found) > 1:
        raise LidarError(
            f"{path}: expected one VOXEL_SIZE in DATA_PROCESSOR, got {len(found)}. Give the nine numbers "
            "X0,Y0,Z0,X1,Y1,Z1,VX,VY,VZ of the network's grid instead."
        )
    return found[0] if found else settings


def _one(path: Path, settings: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    found = [name for name in names if name in settings]
    if len(found) == 1:
        return settings[found[0]]
    what = "a range" if "POINT_CLOUD_RANGE" in names else "a voxel size"
    keys, came = _some(settings), " and ".join(found) or "none"
    raise LidarError(
        f"{path}: expected {what} as {' or '.join(names)}, got {came} (keys: {keys}). A grid's own file is, "
        'in JSON: {"point_range": [X0, Y0, Z0, X1, Y1, Z1], "voxel_size": [VX, VY, VZ]}.'
    )


def _some(settings: Mapping[str, Any]) -> str:
    """The first keys of a mapping, for messages."""
    keys = [str(key)[:40] for key in settings]
    return ", ".join(keys[:20] + ["..."] * (len(keys) > 20)) or "none"


def _load(path: Path) -> Mapping[str, Any]:
    if path.suffix.lower() not in _SUFFIXES:
        raise LidarError(
            f"{path}: expected a grid in a file named *{', *'.join(_SUFFIXES)}. A Python configuration is "
            "not run: give its nine numbers X0,Y0,Z0,X1,Y1,Z1,VX,VY,VZ instead."
        )
    data = read_file(path, _GRID_FILE)
    try:
        content = parse_json(data) if path.suffix.lower() == ".json" else _yaml(data)
    except TextError as error:
        kind = "JSON" if path.suffix.lower() == ".json" else "YAML"
        reason = " ".join(str(error).split())
        raise LidarError(f"{path}: expected a {kind} file, got text that is none: {reason}.") from error
    if not isinstance(content, Mapping):
        raise LidarError(
            f"{path}: expected a mapping with point_range and voxel_size, got {type(content).__name__}."
        )
    return content


def _yaml(data: bytes) -> Any:
    try:
        from scn_fx.files.yaml_text import parse_yaml
    except ModuleNotFoundError as error:
        raise MissingPackageError.of("pyyaml", "cli", "A grid in a YAML file") from error
    return parse_yaml(data)
