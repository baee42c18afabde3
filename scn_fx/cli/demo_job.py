# SPDX-License-Identifier: Apache-2.0
"""What the demo does, stage by stage, without a word about how it is shown."""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scn_fx.cli.output import file_size, megabytes, working
from scn_fx.cli.picture import BevMaps, save_picture
from scn_fx.exporting import export_onnx, quiet
from scn_fx.lidar import CENTERPOINT_GRID, DATA_VARIABLE, embedded_frame, real_frames
from scn_fx.runtime import ArrayDifference, Comparison, Engine, compare, compare_arrays

if TYPE_CHECKING:
    from scn_fx.cli.demo_detector import Detections, DetectorScenes

__all__ = ["DemoReport", "DemoSettings", "FrameResult", "run_demo"]

_REPEATS = 2
_METHOD = "mse"
_SMALL_GRID = (64, 64, 40)
_SMALL_CHANNELS = (4, 8, 8, 8)


@dataclass(frozen=True)
class DemoSettings:
    """What the demo runs on."""

    output_dir: Path
    frames: Path | None = None
    """Folder of real frames; None takes the one that SCN_FX_DATA names, if it is set."""
    threads: int | None = None
    small: bool = False
    """A narrow model on a small grid with a made-up frame."""


@dataclass(frozen=True)
class FrameResult:
    """One frame through the engine."""

    frame: str
    voxels: int
    ok: bool
    """The engine's int8 result and every node are bit-identical to the calibrated graph's."""
    compared: int
    """Nodes and outputs compared."""
    accuracy: ArrayDifference
    """The int8 map against the engine's fp32 map."""
    int8_ms: float
    fp32_ms: float


@dataclass(frozen=True)
class DemoReport:
    """Everything the demo found."""

    results: tuple[FrameResult, ...]
    failures: tuple[str, ...]
    stages: dict[str, float]
    """Seconds by stage."""
    files: dict[str, int]
    """Bytes by path."""
    nodes: int
    convolutions: int
    threads: int | None
    isa: str | None
    seconds: float
    detections: Detections | None = None
    """What the trained detector finds; None where the demo runs on random weights."""
    repeats: int = _REPEATS

    @property
    def ok(self) -> bool:
        """Whether every comparison passed."""
        return not self.failures

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        results = [{**vars(result), "accuracy": result.accuracy.to_dict()} for result in self.results]
        found = None if self.detections is None else self.detections.to_dict()
        return {**vars(self), "ok": self.ok, "results": results, "detections": found}


@dataclass
class _Clock:
    """Times stages, and says what each of them found when it is done."""

    say: Callable[[str], None]
    stages: dict[str, float] = field(default_factory=dict)
    number: int = 0

    @contextmanager
    def stage(self, name: str, text: str) -> Iterator[list[str]]:
        """Yields a list for the facts to show behind the stage's name."""
        facts: list[str] = []
        began = time.perf_counter()
        with working(text):
            yield facts
        self.stages[name] = time.perf_counter() - began
        self.number += 1
        self.say(f"{self.number}. {name:<10} {self.stages[name]:5.1f} s  {', '.join(facts)}")


def run_demo(settings: DemoSettings, say: Callable[[str], None]) -> DemoReport:
    """Run all stages; `say` is given one line after each.

    Frames used for calibration are others than those that results are shown for. Raises the errors of the
    stages (`ScnError`); a failed comparison is no error but in the report.
    """
    began = time.perf_counter()
    clock = _Clock(say)
    folder = settings.output_dir
    folder.mkdir(parents=True, exist_ok=True)
    onnx, cache, image = (folder / name for name in ("scn.onnx", "scn.calibration.json", "bev.png"))

    with clock.stage("frames", "simulating LiDAR sweeps") as facts:
        from scn_fx.cli import demo_detector

        detector = None if settings.small else demo_detector.shipped()
        labelled = None if detector is None else demo_detector.scenes()
        shown, calibration = _frames(settings, labelled)
        facts += [f"{name}: {len(pair[1]):,} voxels" for name, pair in shown.items()]
    with clock.stage("model", "making a CenterPoint encoder"), quiet():
        import torch

        from scn_fx.zoo import demo_model

        features, indices = (torch.from_numpy(array) for array in next(iter(shown.values())))
        if detector is not None:
            model = detector.encoder
        else:
            options = {"channels": _SMALL_CHANNELS, "grid": _SMALL_GRID} if settings.small else {}
            model = demo_model(0, (features.float(), indices), **options)
    with clock.stage("capture", "capturing the model") as facts, quiet():
        from scn_fx.capture import capture
        from scn_fx.graph import layers, set_metadata

        grid = None if settings.small else CENTERPOINT_GRID
        graph = capture(model, model.arguments(features.float(), indices), grid=grid)
        known = {"model": "scn_fx.zoo:demo_model"} if detector is None else demo_detector.origin()
        set_metadata(graph, **known)
        specs = [layer.spec for layer in layers(graph)]
        convolutions, additions = (sum(getattr(s, what) for s in specs) for what in ("weighted", "adds"))
        facts += [f"{convolutions} convolutions", f"{additions} residual Adds, fused"]
    with clock.stage("calibrate", "calibrating") as facts, quiet():
        from scn_fx.quant import calibrate

        float_graph = copy.deepcopy(graph)
        found = calibrate(graph, calibration, method=_METHOD, cache=cache, progress=False)
        int8 = sum(precision == "int8" for precision in found.precisions.values())
        facts += [
            f"{_METHOD} on {found.frames} other frame(s)",
            f"{int8} of {len(found.precisions)} layers int8",
        ]
    with clock.stage("export", "exporting") as facts:
        export_onnx(graph, onnx)
        facts += ["torch.onnx.export(dynamo=True)", megabytes(file_size(onnx))]
    with clock.stage("engine", "running the engine") as facts:
        engine = Engine(onnx, threads=settings.threads)
        single = Engine(onnx, threads=settings.threads, precision="fp32")
        runs = {name: (_timed(engine, pair), _timed(single, pair)) for name, pair in shown.items()}
        facts += [f"{(runs[name][0].seconds * 1e3):.0f} ms int8" for name in list(runs)[:1]]
    with clock.stage("compare", "comparing every node") as facts:
        comparisons = {name: compare(graph, engine, [pair]) for name, pair in shown.items()}
        first = next(iter(comparisons.values()))
        facts += [f"{len(first.nodes)} nodes and {len(first.outputs)} output", _verdict(comparisons)]
    found_boxes = None
    if detector is not None and labelled is not None:
        with clock.stage("detect", "looking for objects") as facts:
            found_boxes = demo_detector.find(detector.head, labelled.held_out, single, engine)
            facts += [
                f"mean AP of {found_boxes.frames} held-out scenes: float32 {100 * found_boxes.ap_float:.2f}",
                f"INT8 {100 * found_boxes.ap_int8:.2f}",
            ]
    with clock.stage("picture", "drawing"):
        pair = next(iter(shown.values()))
        with torch.no_grad():
            reference = float_graph(torch.from_numpy(pair[0]).float(), torch.from_numpy(pair[1])).numpy()
        name = next(iter(runs))
        title = f"CenterPoint sparse encoder, frame {name!r}: strongest channel of each BEV cell"
        extent = None if settings.small else CENTERPOINT_GRID.point_range
        save_picture(image, BevMaps(reference, runs[name][0].result, title, extent, found_boxes))

    results = tuple(
        FrameResult(
            frame=name,
            voxels=len(pair[1]),
            ok=comparisons[name].ok and comparisons[name].identical,
            compared=len(comparisons[name].nodes) + len(comparisons[name].outputs),
            accuracy=compare_arrays(runs[name][1].result, runs[name][0].result),
            int8_ms=runs[name][0].seconds * 1e3,
            fp32_ms=runs[name][1].seconds * 1e3,
        )
        for name, pair in shown.items()
    )
    return DemoReport(
        results=results,
        failures=_failures(comparisons),
        stages=clock.stages,
        files={str(path): file_size(path) for path in (onnx, cache, image)},
        nodes=len(first.nodes),
        convolutions=convolutions,
        threads=engine.threads,
        isa=engine.isa,
        seconds=time.perf_counter() - began,
        detections=found_boxes,
    )


Pair = tuple[np.ndarray, np.ndarray]


def _frames(settings: DemoSettings, labelled: DetectorScenes | None) -> tuple[dict[str, Pair], list[Pair]]:
    """Frames to show by name, and others to calibrate on; real ones if there are any."""
    if settings.small:
        from scn_fx.zoo import demo_frame

        made = [demo_frame(seed, 1000, grid=_SMALL_GRID) for seed in (0, 1)]
        pairs = [(features.numpy(), indices.numpy()) for features, indices in made]
        return {"small": pairs[0]}, [pairs[1]]
    if labelled is not None:
        from scn_fx.cli.demo_detector import pair

        shown: dict[str, Pair] = {"synthetic": pair(labelled.held_out[0])}
        calibration: list[Pair] = [pair(frame) for frame in labelled.calibration]
    else:
        shown = {"synthetic": (*embedded_frame(0),)}
        calibration = [(*embedded_frame(seed),) for seed in (1, 2)]
    if settings.frames is not None or os.environ.get(DATA_VARIABLE):
        # One network, so frames of its grid and width alone; one more frame, so that the demo stays short.
        fitting = [
            f for f in real_frames(settings.frames) if f.grid == CENTERPOINT_GRID and f.features.shape[1] == 5
        ]
        shown.update({frame.name: (*frame,) for frame in fitting[:1]})
        calibration += [(*frame,) for frame in fitting[1:2]]
    return shown, calibration


@dataclass(frozen=True)
class _Run:
    result: Any
    seconds: float


def _timed(engine: Engine, pair: Pair) -> _Run:
    """The engine's result and the best time of some runs after a first one."""
    result = engine(*pair)
    times = []
    for _ in range(_REPEATS):
        began = time.perf_counter()
        result = engine(*pair)
        times.append(time.perf_counter() - began)
    return _Run(result, min(times))


def _verdict(comparisons: dict[str, Comparison]) -> str:
    same = all(comparison.identical for comparison in comparisons.values())
    return "bit-identical to the calibrated graph" if same else "NOT bit-identical to the calibrated graph"


def _failures(comparisons: dict[str, Comparison]) -> tuple[str, ...]:
    found = []
    for name, comparison in comparisons.items():
        first = comparison.first_failure
        if first is not None:
            found.append(f"{name}: {first.name} ({first.op_type}): {'; '.join(first.failures)}")
        elif not comparison.identical:
            found.append(f"{name}: the engine's bits differ from the calibrated graph's")
    return tuple(found)
