# SPDX-License-Identifier: Apache-2.0
"""The shipped detector with its encoder in int8: AP on held-out scenes, for several calibration sets."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import fx

import scn_fx
from benchmarks.accuracy.methods import Variant, merged, quantised, statistics_of
from benchmarks.accuracy.tables import markdown, sqnr
from scn_fx.lidar import CENTERPOINT_GRID

__all__ = ["DetectorResult", "detector_results", "detector_table"]

_SET = 10_000  # seeds from one calibration set to the next


@dataclass(frozen=True)
class DetectorResult:
    """One variant with the ranges of one calibration set; AP in points (percent), SQNR in decibels."""

    variant: str
    calibration: int
    """Number of the set; -1 for float32."""
    ap: float
    by_class: dict[str, float]
    sqnr: float
    """Mean over the scenes, of the dense map."""
    seconds: float
    """For statistics and weights of this set."""
    scenes: int
    """Number of scenes."""


def _captured(encoder: Any, device: str) -> fx.GraphModule:
    sites = torch.zeros(8, 4, dtype=torch.int32)
    sites[:, 3] = torch.arange(8)
    arguments = encoder.arguments(torch.zeros(8, 5), sites)
    graph: fx.GraphModule = scn_fx.capture(encoder, arguments, grid=CENTERPOINT_GRID)
    return graph.to(device)


def detector_results(
    variants: Sequence[Variant],
    *,
    scenes: int = 500,
    frames: int = 64,
    sets: int = 3,
    device: str = "cpu",
    reference: Sequence[tuple[str, fx.GraphModule]] = (),
) -> list[DetectorResult]:
    """Float32 and all variants on the same scenes; `reference` adds graphs that are quantised already.

    Ctrl-C ends the evaluation early: the results are then of the scenes that are through, if there are any.
    """
    from scn_fx.detection import average_precision, held_out_frames, trained_detector
    from scn_fx.detection.scenes import HELD_OUT_SEED

    detector = trained_detector()
    head = detector.head.to(device).eval()
    graph = _captured(detector.encoder, device)
    encoders: list[tuple[str, int, float, Callable[..., Any]]] = [("float32", -1, 0.0, graph)]
    encoders += [(name, 0, 0.0, made) for name, made in reference]
    for number in range(sets):
        began = time.perf_counter()
        first = 2 * HELD_OUT_SEED + number * _SET
        given = [
            (frame.features.float(), frame.indices)
            for frame in held_out_frames(frames, first=first, device=device)
        ]
        statistics = merged(graph, [statistics_of(graph, frame) for frame in given])
        common = time.perf_counter() - began
        for variant in variants:
            began = time.perf_counter()
            made = quantised(graph, statistics, given, variant)
            encoders.append((variant.name, number, common + time.perf_counter() - began, made))
        print(f"calibration set {number + 1} of {sets}: {common:.0f} s for statistics", file=sys.stderr)
    found: list[list[tuple[Any, float]]] = []  # by scene and encoder, boxes and SQNR
    labels = []
    began = time.perf_counter()
    with suppress(KeyboardInterrupt):
        for scene in held_out_frames(scenes, device=device):
            found.append(_of_scene(graph, [encoder for *_, encoder in encoders], head, scene))
            labels.append(scene.boxes)
            done = len(labels)
            left = (time.perf_counter() - began) * (scenes - done) / done
            print(f"\r{done} of {scenes} scenes, {left:.0f} s left ", end="", file=sys.stderr, flush=True)
    if not labels:
        raise KeyboardInterrupt
    results = []
    for (name, number, seconds, _), mine in zip(
        encoders, zip(*found[: len(labels)], strict=True), strict=True
    ):
        precision = average_precision([boxes for boxes, _ in mine], labels).to_dict()
        by_class = {key: 100 * value["ap"] for key, value in precision["classes"].items()}
        quality = float(np.mean([decibels for _, decibels in mine]))
        ap = 100 * precision["mean_ap"]
        results.append(DetectorResult(name, number, ap, by_class, quality, seconds, len(labels)))
    return results


def _of_scene(
    graph: fx.GraphModule, encoders: Sequence[Callable[..., Any]], head: Any, scene: Any
) -> list[tuple[Any, float]]:
    """Boxes, and SQNR of the dense map, of each encoder; `graph` is the float one."""
    from scn_fx.detection import detect

    features = scene.features.float()
    with torch.no_grad():
        wanted = graph(features, scene.indices)
        dense = [wanted if each is graph else each(features, scene.indices).float() for each in encoders]
    return [
        (
            detect(lambda *_, made=made: made, head, features, scene.indices),
            np.inf if made is wanted else sqnr(wanted, made),
        )
        for made in dense
    ]


def detector_table(found: Sequence[DetectorResult]) -> str:
    """AP of float32, and what each variant loses: mean and spread over the calibration sets."""
    exact = next(r for r in found if r.calibration < 0)
    rows = [
        [
            f"float32, {exact.scenes} scenes",
            f"{exact.ap:.2f}",
            "",
            "",
            *(f"{v:.2f}" for v in exact.by_class.values()),
        ]
    ]
    for variant in dict.fromkeys(r.variant for r in found if r is not exact):
        mine = [r for r in found if r.variant == variant]
        lost = [exact.ap - r.ap for r in mine]
        spread = f"{np.mean(lost):+.2f} ({min(lost):+.2f} to {max(lost):+.2f})"
        classes = [f"{np.mean([r.by_class[key] for r in mine]):.2f}" for key in exact.by_class]
        ap, decibels = np.mean([r.ap for r in mine]), np.mean([r.sqnr for r in mine])
        rows.append([variant, f"{ap:.2f}", spread, f"{decibels:.1f}", *classes])
    return markdown(("encoder", "mean AP", "lost (sets)", "SQNR dB", *exact.by_class), rows)


def as_json(found: Sequence[DetectorResult]) -> list[dict[str, object]]:
    """Plain data."""
    return [asdict(result) for result in found]
