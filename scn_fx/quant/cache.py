# SPDX-License-Identifier: Apache-2.0
"""The calibration cache: ranges, precisions and changed weights of one graph as a JSON file.

The format is in `quant.cache_file`.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scn_fx.errors import CalibrationError, LidarError
from scn_fx.files.atomic import write_file
from scn_fx.graph import Layer, metadata
from scn_fx.input_grid import graph_grid, set_grid
from scn_fx.lidar import VoxelGrid
from scn_fx.quant.cache_file import check_graph, head, read_content, require_result
from scn_fx.quant.changes import changed_layers, set_bias, set_weight
from scn_fx.quant.encoding import decoded, encoded
from scn_fx.quant.precision import PRECISIONS, resolve, write_precisions
from scn_fx.quant.provenance import check_grid, provenance
from scn_fx.quant.ranges import (
    LayerRanges,
    checked_range,
    quantizable,
    range_keywords,
    read_ranges,
    write_ranges,
)

if TYPE_CHECKING:
    import torch
    from torch.fx import GraphModule

__all__ = ["load_cache", "save_cache"]


def save_cache(graph: GraphModule, path: str | Path, *, state: dict[str, Any] | None = None) -> Path:
    """Write ranges, precisions and changed weights of a calibrated graph to `path`; returns the path.

    `state` is what calibration adds so that it can go on from the file (see `quant.kept_state`). The file
    appears complete or not at all. Raises CalibrationError if the graph is not calibrated, WriteError if the
    file cannot be written.
    """
    calibration = metadata(graph)["calibration"]
    if calibration is None:
        raise CalibrationError(
            "The graph is not calibrated: there are no ranges to save. Call quant.calibrate first."
        )
    content = {
        **head(graph),
        "method": calibration["method"],
        "frames": calibration["frames"],
        "layers": {layer.name: _entry(layer) for layer in quantizable(graph)},
        "changes": {layer.name: _change(layer) for layer in changed_layers(graph)},
    }
    if state is not None:
        content["state"] = state
    write_file(path, json.dumps(content, indent=1, allow_nan=False) + "\n")
    return Path(path)


def _change(layer: Layer) -> dict[str, Any]:
    return {
        what: None if value is None else encoded(value.half().cpu().numpy())
        for what, value in (("weight", layer.weight), ("bias", layer.bias))
    }


def _entry(layer: Layer) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "kind": layer.kind,
        "precision": layer.precision,
        "output_precision": layer.output_precision,
    }
    ranges = read_ranges(layer)
    return entry if ranges is None else {**entry, **range_keywords(layer, ranges)}


def load_cache(graph: GraphModule, path: str | Path) -> dict[str, Any]:
    """Put the ranges, precisions and changed weights of a cache file into the graph it was made from.

    A graph that knows no voxel grid takes over that of the calibration. Returns the file's `method`, `frames`
    and `tool`. Raises CalibrationError, leaving the graph as it was, if the file is missing, truncated, no
    calibration cache, unfinished, of another version, of another graph or grid, or incomplete. If model and
    checkpoint of both sides are known, it names the one that differs.
    """
    where = Path(path)
    content = read_content(where)
    require_result(content, where)
    check_graph(content, graph, where)
    check_grid(content, provenance(graph), str(path))
    grid = _grid(content, str(path)) if graph_grid(graph) is None else None
    changes = _changes(graph, content.get("changes", {}), str(path))
    entries = content["layers"]
    found = quantizable(graph)
    missing = [layer.name for layer in found if not isinstance(entries.get(layer.name), dict)]
    if missing:
        raise CalibrationError(f"{path} lacks {len(missing)} of {len(found)} layers: {', '.join(missing)}.")
    ranges = {}
    chosen, outputs = {}, {}
    for layer in found:
        entry, what = entries[layer.name], f"{path}, layer {layer.name}"
        ranges[layer.name] = _ranges(layer, entry, what)
        chosen[layer.name] = _precision(entry, "precision", what)
        outputs[layer.name] = _precision(entry, "output_precision", what)
        if chosen[layer.name] == "int8" and ranges[layer.name] is None:
            raise CalibrationError(f"{what}: int8 without ranges. The file is incomplete; calibrate anew.")
    try:
        resolve(graph, chosen, chosen)
    except CalibrationError as error:
        raise CalibrationError(f"{path}: {error}") from error
    complete = {name: entry for name, entry in ranges.items() if entry is not None}
    if grid is not None:
        set_grid(graph, grid)
    for layer, weight, bias in changes:
        set_weight(layer, weight)
        if bias is not None:
            set_bias(layer, bias)
    write_ranges(graph, complete, str(content["method"]), int(content["frames"]))
    write_precisions(graph, chosen, outputs)
    return {key: content[key] for key in ("method", "frames", "tool")}


def _changes(
    graph: GraphModule, entries: Any, path: str
) -> list[tuple[Layer, torch.Tensor, torch.Tensor | None]]:
    """Layer, weight and bias (float32) of each change in the file; the graph is not touched."""
    import torch

    by_name = {layer.name: layer for layer in quantizable(graph) if layer.spec.weighted}
    if not isinstance(entries, dict) or not entries.keys() <= by_name.keys():
        raise CalibrationError(f"{path}: its changes are not those of this graph's convolutions.")
    other = [layer.name for layer in changed_layers(graph) if layer.name not in entries]
    if other:
        raise CalibrationError(
            f"{path} was made with the original weights of {', '.join(other)}, which this graph has changed. "
            "Capture the model anew, then load the cache."
        )
    found: list[tuple[Layer, torch.Tensor, torch.Tensor | None]] = []
    for name, entry in entries.items():
        layer = by_name[name]
        values: list[torch.Tensor | None] = []
        for what, shape in (("weight", tuple(layer.weight.shape)), ("bias", layer.weight.shape[:1])):
            try:
                array = decoded(entry[what]) if what == "weight" or entry[what] is not None else None
            except (ValueError, KeyError, TypeError) as error:
                raise CalibrationError(f"{path}, {what} of {name}: {error}. Calibrate anew.") from error
            if array is None:
                if layer.bias is not None:
                    raise CalibrationError(f"{path}: the changed {name} lacks its bias. Calibrate anew.")
                values.append(None)
                continue
            if array.dtype != np.float16 or array.shape != tuple(shape) or not np.isfinite(array).all():
                raise CalibrationError(
                    f"{path}: the changed {what} of {name} must be finite float16 {list(shape)}, got "
                    f"{array.dtype} {list(array.shape)}. Calibrate anew."
                )
            values.append(torch.from_numpy(array.astype(np.float32)))
        assert values[0] is not None
        found.append((layer, values[0], values[1]))
    return found


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
    keys = [each.attribute for each in layer.spec.ranges]
    present = [key for key in keys if entry.get(key) is not None]
    if not present:
        return None
    if present != keys:
        raise CalibrationError(f"{where}: expected {' and '.join(keys)}, got only {present[0]}.")
    if layer.spec.weight_range is None:
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
