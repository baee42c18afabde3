# SPDX-License-Identifier: Apache-2.0
"""The demo's detector: labelled scenes, and what float and INT8 find in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from scn_fx.detection import (
    BevHead,
    Detector,
    EncoderFunction,
    LabelledFrame,
    average_precision,
    detect,
    held_out_frames,
    trained_detector,
)
from scn_fx.detection.checkpoint import SHIPPED
from scn_fx.detection.scenes import HELD_OUT_SEED, labelled_frame
from scn_fx.lidar import CENTERPOINT_GRID, VoxelGrid
from scn_fx.lidar.boxes import MIN_POINTS, Boxes
from scn_fx.lidar.raycast import SceneArrays
from scn_fx.quant.checkpoint_files import file_sha256

__all__ = ["Detections", "DetectorScenes", "find", "scenes", "shipped"]

_SCENES = 6
_CALIBRATION = 4

Pair = tuple[npt.NDArray[Any], npt.NDArray[Any]]


@dataclass(frozen=True, eq=False)
class DetectorScenes:
    """What the demo shows the detector."""

    held_out: tuple[LabelledFrame, ...]
    calibration: tuple[LabelledFrame, ...]
    """Of other seeds."""


@dataclass(frozen=True, eq=False)
class Detections:
    """What was found in labelled frames."""

    labels: Boxes
    """Of the first frame, those that count."""
    reference: Boxes
    """What float32 found there."""
    result: Boxes
    """What INT8 found there."""
    frames: int
    ap_float: float
    """Mean AP in float32 over classes and distances, 0 to 1, on `frames` frames."""
    ap_int8: float

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        found = {"labels": len(self.labels), "float": len(self.reference), "int8": len(self.result)}
        ap = {"ap_float": self.ap_float, "ap_int8": self.ap_int8}
        return {
            "frames": self.frames,
            **{k: None if np.isnan(v) else v for k, v in ap.items()},
            "boxes": found,
        }


def shipped() -> Detector | None:
    """The trained detector, if this copy of scn-fx has one."""
    return trained_detector() if SHIPPED.is_file() else None


def origin() -> dict[str, Any]:
    """What the metadata of a graph of its encoder say: model and file of weights."""
    weights = {"file": SHIPPED.name, "sha256": file_sha256(SHIPPED)}
    return {"model": "scn_fx.detection:trained_detector", "checkpoint": weights}


def scenes() -> DetectorScenes:
    """Held-out scenes, and calibration scenes of seeds that are neither these nor training's."""
    calibration = (SceneArrays.traffic(2 * HELD_OUT_SEED + i) for i in range(_CALIBRATION))
    return DetectorScenes(
        tuple(held_out_frames(_SCENES)), tuple(labelled_frame(scene) for scene in calibration)
    )


def pair(frame: LabelledFrame) -> Pair:
    """Features and indices of a frame as the engine takes them."""
    return frame.features.numpy(), frame.indices.numpy()


def find(
    head: BevHead,
    frames: Sequence[LabelledFrame],
    reference: EncoderFunction,
    result: EncoderFunction,
    grid: VoxelGrid = CENTERPOINT_GRID,
) -> Detections:
    """Boxes and AP of two encoders of one network, float32 first, under the same head."""

    def boxes(encoder: Callable[[Any, Any], Any]) -> list[Boxes]:
        return [detect(encoder, head, *pair(frame), grid=grid) for frame in frames]

    labels = [frame.boxes for frame in frames]
    first, second = boxes(reference), boxes(result)
    counted = labels[0][labels[0].points >= MIN_POINTS]
    means = [average_precision(found, labels).mean for found in (first, second)]
    return Detections(counted, first[0], second[0], len(frames), *means)
