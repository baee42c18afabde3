# SPDX-License-Identifier: Apache-2.0
"""Average precision by the distance of centres, as the nuScenes detection benchmark defines it.

Definition: Caesar et al., "nuScenes: A multimodal dataset for autonomous driving", CVPR 2020, section 3.1,
and the benchmark's description. Detections of a class are taken over all frames in the order of their score;
each takes the nearest box of that class in its frame that none has taken, if its centre is nearer than the
threshold as seen from above. Precision is read at 101 evenly spaced recalls (linearly between measured
points, 0 beyond the last); recalls up to 0.1 are left out, 0.1 is taken from each precision (not below 0),
and the mean is divided by 0.9.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from scn_fx.errors import ArgumentError
from scn_fx.lidar.boxes import CLASSES, MIN_POINTS, Boxes

__all__ = ["DISTANCES", "RANGES", "AveragePrecision", "average_precision"]

DISTANCES = (0.5, 1.0, 2.0, 4.0)
"""Thresholds in metres."""

RANGES = {"car": 50.0, "van": 50.0, "truck": 50.0, "pedestrian": 40.0, "cyclist": 40.0}
"""Boxes farther from the sensor, as seen from above, are left out, labels and detections alike."""

_MIN_RECALL = 0.1
_MIN_PRECISION = 0.1
_RECALLS = np.linspace(0.0, 1.0, 101)


@dataclass(frozen=True, eq=False)
class AveragePrecision:
    """What `average_precision` found."""

    table: npt.NDArray[np.float64]
    """[classes, distances], 0 to 1; NaN for a class without labels."""
    labels: npt.NDArray[np.int64]
    """[classes]: labelled boxes that count."""
    frames: int

    @property
    def mean(self) -> float:
        """Over all distances and all classes with labels, 0 to 1; NaN if there are none."""
        there = self.table[self.labels > 0]
        return float(there.mean()) if there.size else float("nan")

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; a class without labels has null."""
        classes = {
            name: {
                "labels": int(self.labels[i]),
                "ap": float(self.table[i].mean()) if self.labels[i] else None,
                "by_distance": dict(zip(map(str, DISTANCES), self.table[i].tolist(), strict=True))
                if self.labels[i]
                else None,
            }
            for i, name in enumerate(CLASSES)
        }
        mean = None if np.isnan(self.mean) else self.mean
        return {"mean_ap": mean, "frames": self.frames, "classes": classes}

    def __str__(self) -> str:
        lines = [
            f"{'class':<12}{'labels':>8}" + "".join(f"{f'{d:g} m':>8}" for d in DISTANCES) + f"{'mean':>8}"
        ]
        for i, name in enumerate(CLASSES):
            values = [*self.table[i], self.table[i].mean()]
            shown = "".join(f"{100 * v:8.2f}" if self.labels[i] else f"{'-':>8}" for v in values)
            lines.append(f"{name:<12}{self.labels[i]:>8}{shown}")
        lines.append(f"{'mean AP':<12}{int(self.labels.sum()):>8}{'':>32}{100 * self.mean:8.2f}")
        return "\n".join(lines)


def average_precision(
    detections: Sequence[Boxes], labels: Sequence[Boxes], *, min_points: int = MIN_POINTS
) -> AveragePrecision:
    """The AP of detections against labels, frame by frame in the same order.

    Labels with fewer than `min_points` returns are no objects, for nothing could find them; the benchmark
    does the same with 1. Detections of equal score go in the order in which they are given. Raises
    ArgumentError when the numbers of frames differ or are 0.
    """
    if len(detections) != len(labels) or not labels:
        raise ArgumentError(
            f"Expected detections and labels of the same frames, at least one, got {len(detections)} and "
            f"{len(labels)}."
        )
    table = np.full((len(CLASSES), len(DISTANCES)), np.nan)
    numbers = np.zeros(len(CLASSES), np.int64)
    for label, name in enumerate(CLASSES):
        truth = [_of_class(boxes[boxes.points >= min_points], label, RANGES[name]) for boxes in labels]
        numbers[label] = sum(map(len, truth))
        if numbers[label]:
            found = [_of_class(boxes, label, RANGES[name]) for boxes in detections]
            for column, distance in enumerate(DISTANCES):
                table[label, column] = _average(found, truth, distance)
    return AveragePrecision(table, numbers, len(labels))


def _of_class(boxes: Boxes, label: int, reach: float) -> Boxes:
    away = np.hypot(boxes.centre[:, 0], boxes.centre[:, 1])
    return boxes[(boxes.label == label) & (away < reach)]


def _average(found: list[Boxes], truth: list[Boxes], distance: float) -> float:
    """AP of one class at one threshold; there is at least one label."""
    hits = np.concatenate([_matched(a, b, distance) for a, b in zip(found, truth, strict=True)])
    scores = np.concatenate([boxes.score for boxes in found])
    if not hits.any():
        return 0.0
    order = np.argsort(-scores, kind="stable")
    right = np.cumsum(hits[order]).astype(np.float64)
    precision = right / np.arange(1, len(right) + 1)
    recall = right / sum(map(len, truth))
    read = np.interp(_RECALLS, recall, precision, right=0.0)
    above = read[round(100 * _MIN_RECALL) + 1 :] - _MIN_PRECISION
    return float(np.maximum(above, 0.0).mean()) / (1.0 - _MIN_PRECISION)


def _matched(found: Boxes, truth: Boxes, distance: float) -> npt.NDArray[np.bool_]:
    """Which detections of a frame take a label. Frames do not compete, so each can be matched on its own."""
    hits = np.zeros(len(found), bool)
    if not len(truth):
        return hits
    between = found.centre[:, None, :2].astype(np.float64) - truth.centre[None, :, :2]
    gaps = np.sqrt((between**2).sum(2))
    free = np.ones(len(truth), bool)
    for row in np.argsort(-found.score, kind="stable"):
        gap = np.where(free, gaps[row], np.inf)
        nearest = int(gap.argmin())
        if gap[nearest] < distance:
            hits[row], free[nearest] = True, False
    return hits
