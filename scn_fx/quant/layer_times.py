# SPDX-License-Identifier: Apache-2.0
"""What int8 saves in each layer: the engine's times of a graph's layers in int8 and in float16.

The one place in which calibration looks ahead to the stages behind it: the graph is exported and run.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from scn_fx.errors import CalibrationError
from scn_fx.operators.convolution import CONVOLUTION
from scn_fx.quant.precision import output_precisions, write_precisions

if TYPE_CHECKING:
    import torch
    from torch.fx import GraphModule

    from scn_fx.runtime import Engine

__all__ = ["LayerTimes", "engine_of", "frame_milliseconds", "given_times", "measure_times"]

_WARM_UP = 2


@dataclass(frozen=True)
class LayerTimes:
    """Milliseconds of one frame.

    Attributes:
        device: where they were measured; "given" if the caller gave them.
        int8, fp16: of each layer by name. An Add costs nothing by itself: it is part of the convolution
            before it.
        total: of the whole frame with every layer in int8, kernel maps and dense map included.
    """

    device: str
    int8: dict[str, float]
    fp16: dict[str, float]
    total: float

    def added(self, name: str) -> float:
        """Milliseconds that float16 adds for a layer; negative where it is faster."""
        return self.fp16[name] - self.int8[name]

    def frame(self, fp16: Iterable[str]) -> float:
        """Milliseconds of a frame with these layers in float16, as the sum of the layers predicts it."""
        return self.total + math.fsum(self.added(name) for name in fp16)


def given_times(times: Mapping[str, tuple[float, float]], names: Sequence[str]) -> LayerTimes:
    """Times from elsewhere: (milliseconds in int8, in float16) by layer; a frame takes the sum of them.

    Raises CalibrationError for a layer without times, or times that are none.
    """
    missing = [name for name in names if name not in times]
    if missing:
        raise CalibrationError(
            f"times lacks {len(missing)} of {len(names)} layers: {', '.join(missing[:5])}. Give "
            "{name: (milliseconds in int8, milliseconds in fp16)} for each, or leave it out to have them "
            "measured."
        )
    pairs = {}
    for name in names:
        try:
            int8, fp16 = (float(value) for value in times[name])
        except (TypeError, ValueError):
            int8 = fp16 = math.nan
        if not (0 <= int8 < math.inf and 0 <= fp16 < math.inf):
            raise CalibrationError(
                f"times[{name!r}] must be two numbers of milliseconds (int8, fp16), got {times[name]!r}."
            )
        pairs[name] = int8, fp16
    int8_times = {name: pair[0] for name, pair in pairs.items()}
    total = math.fsum(int8_times.values())
    return LayerTimes("given", int8_times, {name: pair[1] for name, pair in pairs.items()}, total)


def measure_times(
    graph: GraphModule,
    frame: Sequence[torch.Tensor],
    precisions: Mapping[str, str],
    names: Sequence[str],
    device: str,
    *,
    repeat: int = 5,
) -> LayerTimes:
    """The engine's times on `device`: of `precisions`, and of the same with the layers `names` in float16.

    Medians over `repeat` frames after two to warm up, both engines in turn. `graph` stays as it is. Raises
    ArgumentError for a device that cannot be used, MissingPackageError without the packages that export.
    """
    from scn_fx.bench.timing import in_turn

    engines = {
        "int8": engine_of(graph, precisions, device),
        "fp16": engine_of(graph, {**precisions, **dict.fromkeys(names, "fp16")}, device),
    }
    arrays = _arrays(graph, frame)
    runs: dict[str, Any] = {kind: lambda e=engine: e.profile(*arrays) for kind, engine in engines.items()}
    profiles = in_turn(runs, lambda run: run(), repeat, warmup=_WARM_UP)
    seconds = {kind: _medians(found) for kind, found in profiles.items()}
    total = median(math.fsum(stage.seconds for stage in stages) for stages in profiles["int8"])
    int8, fp16 = ({name: 1e3 * seconds[kind].get(name, 0.0) for name in names} for kind in engines)
    return LayerTimes(engines["int8"].device, int8, fp16, 1e3 * total)


def frame_milliseconds(
    graph: GraphModule,
    frame: Sequence[torch.Tensor],
    variants: Mapping[str, Mapping[str, str]],
    device: str,
    *,
    repeat: int = 7,
) -> dict[str, float]:
    """Milliseconds of a whole frame for each variant of precisions, by its key: medians, run in turn."""
    from scn_fx.bench.timing import interleaved

    arrays = _arrays(graph, frame)
    runs = {}
    for key, precisions in variants.items():
        engine = engine_of(graph, precisions, device)
        runs[key] = lambda e=engine: e(*arrays)
    return {key: 1e3 * timing.median for key, timing in interleaved(runs, repeat, warmup=_WARM_UP).items()}


def engine_of(graph: GraphModule, precisions: Mapping[str, str], device: str) -> Engine:
    """An engine of the graph in these precisions; the graph itself keeps its own."""
    from scn_fx.exporting import export_onnx
    from scn_fx.files.onnx_models import ONNX_FILE
    from scn_fx.files.reading import read_file
    from scn_fx.operators.dialects import SCN_FX
    from scn_fx.runtime import Engine

    variant = copy.deepcopy(graph)
    write_precisions(variant, precisions, output_precisions(variant, precisions))
    with TemporaryDirectory(prefix="scn_fx_") as folder:
        path = Path(folder) / "layers.onnx"
        # The exporter that takes a fraction of a second; nobody keeps the file.
        export_onnx(variant, path, "torchscript", SCN_FX)
        return Engine(read_file(path, ONNX_FILE), device)


def _medians(profiles: Sequence[Sequence[Any]]) -> dict[str, float]:
    """Median seconds of each convolution by name."""
    found: dict[str, list[float]] = {}
    for stages in profiles:
        for stage in stages:
            if stage.kind == CONVOLUTION.name:
                found.setdefault(stage.name, []).append(stage.seconds)
    return {name: median(seconds) for name, seconds in found.items()}


def _arrays(graph: GraphModule, frame: Sequence[torch.Tensor]) -> tuple[Any, Any]:
    from scn_fx.quant.frames import input_spec

    spec = input_spec(graph)
    features, indices = frame[spec.features], frame[spec.indices]
    return features.half().cpu().numpy(), indices.cpu().numpy()
