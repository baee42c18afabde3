# SPDX-License-Identifier: Apache-2.0
"""The calibration cache: ranges and precisions of one graph as a JSON file.

Format version 1: one object with `format`, `version`, `tool` (name and version that wrote it), `method`,
`frames`, `fingerprint` (see `scn_fx.graph.fingerprint`), where known `model` (name or import path),
`checkpoint` (`file` and `sha256`, or null for none) and `grid`, and `layers`: for each layer name its `kind`,
`precision`, `output_precision` and, if it has ranges, `input_dynamic_range` and `weight_dynamic_ranges` or
`input0_dynamic_range` and `input1_dynamic_range`. Ranges are float32 values written with enough digits to be
read back unchanged.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from quant.precision import PRECISIONS, resolve, write_precisions
from quant.provenance import cause_of_difference, check_grid, provenance
from quant.ranges import LayerRanges, checked_range, quantizable, read_ranges, write_ranges
from scn_fx import __version__
from scn_fx.errors import CalibrationError, LidarError
from scn_fx.files.atomic import write_file
from scn_fx.files.json_text import TextError, parse_json
from scn_fx.files.reading import FileKind, read_file
from scn_fx.graph import Layer, fingerprint, metadata
from scn_fx.input_grid import graph_grid, set_grid
from scn_fx.lidar import VoxelGrid

if TYPE_CHECKING:
    from torch.fx import GraphModule

__all__ = ["load_cache", "save_cache"]

_CACHE_FILE = FileKind(CalibrationError, 16 << 20, "a calibration cache", pipes=True)
"""16 MiB are some 700,000 ranges; CenterPoint's cache has 60 KB."""
FORMAT = "scn-fx calibration cache"
VERSION = 1


def save_cache(graph: GraphModule, path: str | Path) -> Path:
    """Write the ranges and precisions of a calibrated graph to `path`; returns the path.

    The file appears complete or not at all. Raises CalibrationError if the graph is not calibrated,
    WriteError if the file cannot be written.
    """
    calibration = metadata(graph)["calibration"]
    if calibration is None:
        raise CalibrationError(
            "The graph is not calibrated: there are no ranges to save. Call quant.calibrate first."
        )
    content = {
        "format": FORMAT,
        "version": VERSION,
        "tool": f"scn-fx {__version__}",
        "method": calibration["method"],
        "frames": calibration["frames"],
        "fingerprint": fingerprint(graph),
        **provenance(graph),
        "layers": {layer.name: _entry(layer) for layer in quantizable(graph)},
    }
    write_file(path, json.dumps(content, indent=1, allow_nan=False) + "\n")
    return Path(path)


def _entry(layer: Layer) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "kind": layer.kind,
        "precision": layer.precision,
        "output_precision": layer.output_precision,
    }
    ranges = read_ranges(layer)
    if ranges is None:
        return entry
    if ranges.weight is not None:
        return {
            **entry,
            "input_dynamic_range": ranges.inputs[0],
            "weight_dynamic_ranges": list(ranges.weight),
        }
    return {**entry, "input0_dynamic_range": ranges.inputs[0], "input1_dynamic_range": ranges.inputs[1]}


def load_cache(graph: GraphModule, path: str | Path) -> dict[str, Any]:
    """Put the ranges and precisions of a cache file into the graph it was made from.

    A graph that knows no voxel grid takes over that of the calibration. Returns the file's `method`, `frames`
    and `tool`. Raises CalibrationError, leaving the graph as it was, if the file is missing, truncated, no
    calibration cache, of another version, of another graph or grid, or incomplete. If model and checkpoint of
    both sides are known, it names the one that differs.
    """
    content = _read(Path(path))
    own = fingerprint(graph)
    if content["fingerprint"] != own:
        raise CalibrationError(
            f"{path} belongs to another graph: its fingerprint is {str(content['fingerprint'])[:12]}..., "
            f"this graph's is {own[:12]}... {cause_of_difference(content, provenance(graph))}"
        )
    check_grid(content, provenance(graph), str(path))
    grid = _grid(content, str(path)) if graph_grid(graph) is None else None
    entries = content["layers"]
    found = quantizable(graph)
    missing = [layer.name for layer in found if not isinstance(entries.get(layer.name), dict)]
    if missing:
        raise CalibrationError(f"{path} lacks {len(missing)} of {len(found)} layers: {', '.join(missing)}.")
    ranges = {}
    chosen, outputs = {}, {}
    for layer in found:
        where = f"{path}, layer {layer.name}"
        entry = entries[layer.name]
        ranges[layer.name] = _ranges(layer, entry, where)
        chosen[layer.name] = _precision(entry, "precision", where)
        outputs[layer.name] = _precision(entry, "output_precision", where)
        if chosen[layer.name] == "int8" and ranges[layer.name] is None:
            raise CalibrationError(f"{where}: int8 without ranges. The file is incomplete; calibrate anew.")
    try:
        resolve(graph, chosen, chosen)
    except CalibrationError as error:
        raise CalibrationError(f"{path}: {error}") from error
    complete = {name: entry for name, entry in ranges.items() if entry is not None}
    if grid is not None:
        set_grid(graph, grid)
    write_ranges(graph, complete, str(content["method"]), int(content["frames"]))
    write_precisions(graph, chosen, outputs)
    return {key: content[key] for key in ("method", "frames", "tool")}


def _read(path: Path) -> dict[str, Any]:
    data = read_file(path, _CACHE_FILE)
    try:
        content = parse_json(data)
    except TextError as error:
        raise CalibrationError(
            f"{path} is no complete JSON file ({error}). It may be truncated; calibrate anew."
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CalibrationError(f"{path} is JSON, but not a {FORMAT} (its 'format' should say so).")
    if content.get("version") != VERSION:
        raise CalibrationError(
            f"{path} has format version {str(content.get('version'))[:20]}; this version of scn-fx reads "
            f"{VERSION}. "
            "Calibrate anew, or use the version that wrote it "
            f"({str(content.get('tool'))[:40]})."
        )
    kinds = {"method": str, "frames": int, "fingerprint": str, "layers": dict, "tool": str}
    wrong = [key for key, kind in kinds.items() if type(content.get(key)) is not kind]  # True is no number
    if wrong:
        raise CalibrationError(
            f"{path} lacks {', '.join(wrong)} or holds the wrong kind of value there; calibrate anew."
        )
    return content


def _grid(content: dict[str, Any], path: str) -> VoxelGrid | None:
    """The grid of the calibration; None if it knew none."""
    try:
        return VoxelGrid.from_dict(content["grid"]) if content.get("grid") is not None else None
    except (LidarError, TypeError) as error:
        raise CalibrationError(f"{path}: its grid is damaged: {error} Calibrate anew.") from error


def _precision(entry: dict[str, Any], key: str, where: str) -> str:
    value = entry.get(key)
    if value not in PRECISIONS:
        raise CalibrationError(
            f"{where}: {key} must be one of {', '.join(PRECISIONS)}, got {repr(value)[:60]}."
        )
    return str(value)


def _ranges(layer: Layer, entry: dict[str, Any], where: str) -> LayerRanges | None:
    if layer.kind == "add":
        keys = ["input0_dynamic_range", "input1_dynamic_range"]
    else:
        keys = ["input_dynamic_range", "weight_dynamic_ranges"]
    present = [key for key in keys if entry.get(key) is not None]
    if not present:
        return None
    if present != keys:
        raise CalibrationError(f"{where}: expected {' and '.join(keys)}, got only {present[0]}.")
    if layer.kind == "add":
        return LayerRanges(tuple(_exact(entry[key], f"{where}, {key}") for key in keys))
    weight = entry[keys[1]]
    channels = layer.weight.shape[0]
    if not isinstance(weight, list) or len(weight) != channels:
        size = len(weight) if isinstance(weight, list) else type(weight).__name__
        raise CalibrationError(f"{where}: expected {channels} {keys[1]}, got {size}.")
    return LayerRanges(
        (_exact(entry[keys[0]], f"{where}, {keys[0]}"),),
        tuple(_exact(value, f"{where}, {keys[1]}[{channel}]") for channel, value in enumerate(weight)),
    )


def _exact(value: Any, what: str) -> float:
    """A range read from the file: a number that float32 holds without rounding."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise CalibrationError(f"{what}: expected a finite number, got {repr(value)[:60]}.")
    with np.errstate(over="ignore"):
        single = float(np.float32(value))
    if single != value:
        raise CalibrationError(f"{what}: {value!r} is not a float32 value; the file was edited or damaged.")
    return checked_range(value, what)
