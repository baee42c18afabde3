# SPDX-License-Identifier: Apache-2.0
"""The shipped detector's encoder in int8 on real sweeps of several sensors: SQNR of its dense map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch

import scn_fx
from benchmarks.accuracy.data import data_folder, sweeps, unit_intensity
from benchmarks.accuracy.methods import Variant, merged, quantised, statistics_of
from benchmarks.accuracy.tables import markdown, sqnr
from scn_fx.lidar import CENTERPOINT_GRID, voxelize

__all__ = ["SensorResult", "sensor_results", "sensor_table"]


@dataclass(frozen=True)
class SensorResult:
    """SQNR of the dense map in decibels, float32 to int8, of one variant on one sweep."""

    variant: str
    sweep: str
    voxels: int
    sqnr: float


def sensor_results(variants: Sequence[Variant], device: str = "cpu") -> list[SensorResult]:
    """All variants on all sweeps of SCN_FX_DATA/frames, each with ranges from all other sweeps."""
    from scn_fx.detection import trained_detector

    encoder = trained_detector().encoder
    frames = {}
    for name, points in sweeps(data_folder("frames")):
        features, indices = voxelize(unit_intensity(points), CENTERPOINT_GRID)
        frames[name] = (
            torch.from_numpy(np.asarray(features)).float().to(device),
            torch.from_numpy(np.asarray(indices)).to(device),
        )
    few = [tensor[:8].cpu() for tensor in next(iter(frames.values()))]
    graph = scn_fx.capture(encoder, encoder.arguments(*few), grid=CENTERPOINT_GRID).to(device)
    with torch.no_grad():
        wanted = {name: graph(x.half().float(), indices) for name, (x, indices) in frames.items()}
    statistics = {name: statistics_of(graph, frame) for name, frame in frames.items()}
    found = []
    for variant in variants:
        for name, frame in frames.items():
            others = [n for n in frames if n != name]
            everything = merged(graph, [statistics[n] for n in others])
            made = quantised(graph, everything, [frames[n] for n in others], variant)
            with torch.no_grad():
                dense = made(*frame)
            found.append(SensorResult(variant.name, name, len(frame[0]), sqnr(wanted[name], dense.float())))
    return found


def sensor_table(found: Sequence[SensorResult]) -> str:
    """A column for each sweep."""
    names = list(dict.fromkeys(r.sweep for r in found))
    rows = []
    for variant in dict.fromkeys(r.variant for r in found):
        mine = {r.sweep: r.sqnr for r in found if r.variant == variant}
        rows.append([variant, *(f"{mine[n]:.1f}" for n in names), f"{np.mean(list(mine.values())):.1f}"])
    return markdown(("method, dB", *names, "mean"), rows)


def as_json(found: Sequence[SensorResult]) -> list[dict[str, object]]:
    """Plain data."""
    return [asdict(result) for result in found]
