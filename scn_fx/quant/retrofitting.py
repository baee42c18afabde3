# SPDX-License-Identifier: Apache-2.0
"""Calibrates a float16 ONNX file of the libspconv dialect: writes ranges and precisions into its nodes."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scn_fx.errors import CalibrationError
from scn_fx.files.atomic import check_writable, write_file
from scn_fx.graph import Layer, layers, metadata
from scn_fx.lidar.given_frames import FrameStream
from scn_fx.quant.auto_precision import PrecisionChoice, choose_precision
from scn_fx.quant.budget import Budget, parse_budget
from scn_fx.quant.budget_frames import few
from scn_fx.quant.calibration import CalibrationResult, calibrate
from scn_fx.quant.frames import check_frame, input_spec, round_features
from scn_fx.quant.precision import PrecisionSpec, default_precisions, resolve

if TYPE_CHECKING:
    from scn_fx.graph import CapturedGraph

__all__ = ["RetrofitReport", "annotate", "retrofit"]

_RANGES = (
    "input_dynamic_range",
    "weight_dynamic_ranges",
    "input0_dynamic_range",
    "input1_dynamic_range",
)
_PRECISIONS = ("precision", "output_precision")


@dataclass(frozen=True)
class RetrofitReport:
    """What `retrofit` did.

    Attributes:
        path: the file that was written.
        nodes: nodes that have ranges now.
        replaced: those of them that had ranges before.
        calibration: ranges, warnings, precisions before a choice; see `quant.CalibrationResult`.
        choice: the precisions chosen for a budget; None without one.
    """

    path: Path
    nodes: int
    replaced: int
    calibration: CalibrationResult
    choice: PrecisionChoice | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        found = self.calibration
        final = self.choice or found
        return {
            "file": str(self.path),
            "nodes": self.nodes,
            "replaced": self.replaced,
            "method": found.method,
            "frames": found.frames,
            "warnings": list(found.warnings),
            "choice": self.choice.to_dict() if self.choice else None,
            "layers": [
                {
                    "name": name,
                    "precision": final.precisions[name],
                    "output_precision": final.output_precisions[name],
                    "ranges": list(ranges.inputs),
                    "largest": list(found.largest[name]),
                }
                for name, ranges in found.ranges.items()
            ],
        }


def retrofit(
    path_in: str | os.PathLike[str],
    frames: Iterable[Sequence[Any]],
    path_out: str | os.PathLike[str],
    *,
    precision: PrecisionSpec = None,
    budget: Budget | str | None = None,
    device: str = "cpu",
    overwrite: bool = False,
    spatial_shape: Sequence[int] | None = None,
    **calibration: Any,
) -> RetrofitReport:
    """Calibrate an ONNX file on frames: find the ranges that an int8 engine needs and write them into it.

    The file runs in float32, by the engine's kernels, as a calibrated graph of its model would; each value
    of the first frame is compared with the engine's own. Ranges are those that `quant.calibrate` finds for
    the model that the file was exported from, bit for bit if the model's weights are float16 numbers (the
    file has nothing finer). Nodes, weights, names and everything else stay as they are.

    Args:
        path_in: a file of the libspconv dialect, ours or another tool's.
        frames: features float [N, C] and indices int32 [N, 4] of each frame, as for `quant.calibrate`.
        path_out: the file to write; it may be the same one.
        precision: overrides on the default precisions, see `quant.set_precision`; "int8" and "fp16" alone.
        budget: choose the layers that stay float16 for this budget, see `quant.choose_precision`, on at most
            16 of the frames, spread evenly; they are then read twice.
        device: where the engine is timed for that.
        overwrite: replace ranges that the file already has.
        spatial_shape: grid (z, y, x) of the input, for files that do not say it.
        **calibration: any option of `quant.calibrate` but precision and cache: method=, percentile=, ...

    Raises:
        OnnxError: the engine cannot run the file.
        CalibrationError: it has ranges already; or any error of `quant.calibrate`. Nothing is written.
        WriteError: `path_out` cannot be written.
    """
    from scn_fx.runtime.file_graph import file_graph

    check_writable(path_out)
    found = file_graph(path_in, spatial_shape=spatial_shape)
    names = _with_ranges(found.model)
    if names and not overwrite:
        raise CalibrationError(
            f"{os.fspath(path_in)} has ranges already, in {len(names)} nodes ({names[0]}, ...). To replace "
            "them say so: overwrite=True (--force on the command line)."
        )
    if "fp32" in resolve(found.graph, precision, default_precisions(found.graph)).values():
        raise CalibrationError(
            "A file's nodes are int8 or fp16, and fp32 was asked for. Run it with Engine(..., "
            "precision='fp32') instead; that needs no ranges."
        )
    if budget is not None:
        budget = parse_budget(budget)
        if not hasattr(frames, "__len__") and not isinstance(frames, FrameStream):
            raise CalibrationError("With a budget the frames are read twice: pass a list, not an iterator.")
    first, frames = _peeked(frames)
    if first is not None:
        _check_values(found.graph, found.model, first, spatial_shape)
    result = calibrate(found.graph, frames, precision=precision, **calibration)
    choice = None
    if budget is not None:
        choice = choose_precision(
            found.graph,
            few(frames),
            budget=budget,
            device=device,
            precision=precision,
            progress=calibration.get("progress"),
        )
    annotate(found.model, found.graph)
    write_file(path_out, found.model.SerializeToString())
    return RetrofitReport(Path(path_out), len(result.ranges), len(names), result, choice)


def annotate(model: Any, graph: CapturedGraph) -> None:
    """Write ranges and precisions of a calibrated graph into the `onnx.ModelProto` that it was read from."""
    from onnx import helper

    from scn_fx.runtime.file_graph import node_label

    by_name = {layer.name: layer for layer in layers(graph) if layer.spec.quantisable}
    for node in model.graph.node:
        layer = by_name.get(node_label(node))
        if layer is None:
            continue
        wanted = {key: helper.make_attribute(key, value) for key, value in _entries(layer).items()}
        kept = [wanted.pop(a.name, a) for a in node.attribute]
        del node.attribute[:]
        node.attribute.extend([*kept, *wanted.values()])
    _note(model, metadata(graph)["calibration"])


def _entries(layer: Layer) -> dict[str, Any]:
    """What the dialect says of a calibrated layer, see `scn_fx.onnx.dialect`."""
    entries: dict[str, Any] = {"precision": layer.precision, "output_precision": layer.output_precision}
    return {**entries, **{each.attribute: layer.argument(each.attribute) for each in layer.spec.ranges}}


def _note(model: Any, calibration: dict[str, Any]) -> None:
    """Record the calibration where the file records its making, or in the model's metadata."""
    ours = [
        part.metadata_props
        for part in (model.graph, model)
        if any(entry.key == "scn_fx.version" for entry in part.metadata_props)
    ]
    props = ours[0] if ours else model.metadata_props
    for key in ("method", "frames"):
        name, value = f"scn_fx.calibration.{key}", str(calibration[key])
        entry = next((e for e in props if e.key == name), None) or props.add(key=name)
        entry.value = value


def _with_ranges(model: Any) -> list[str]:
    """Names of the nodes that have ranges, or are int8 already."""
    from scn_fx.runtime.file_graph import node_label

    return [
        node_label(node)
        for node in model.graph.node
        if any(a.name in _RANGES or (a.name in _PRECISIONS and a.s == b"int8") for a in node.attribute)
    ]


def _peeked(frames: Iterable[Sequence[Any]]) -> tuple[Sequence[Any] | None, Iterable[Sequence[Any]]]:
    """The first frame, if there is one, and all of them."""
    if not isinstance(frames, Iterable) and not hasattr(frames, "__getitem__"):
        return None, frames  # calibrate says what is wrong
    iterator = iter(frames)
    first = next(iterator, None)
    once = iterator is frames
    return first, itertools.chain([] if first is None else [first], iterator) if once else frames


def _check_values(
    graph: CapturedGraph, model: Any, frame: Sequence[Any], spatial_shape: Sequence[int] | None
) -> None:
    """The engine itself computes, node by node, what the ranges are about to be taken from."""
    from scn_fx.runtime import Engine, Limits, compare

    spec = input_spec(graph)
    tensors = round_features(check_frame(frame, spec, 0), spec, 0)
    engine = Engine(model.SerializeToString(), precision="fp32", spatial_shape=spatial_shape)
    limits = Limits(identical=True, allow_zero=True, reason="one file, read twice")
    compare(graph, engine, [tensors], limits=limits).check()
