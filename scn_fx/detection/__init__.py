# SPDX-License-Identifier: Apache-2.0
"""A CenterPoint-style detector on top of a sparse encoder: head, boxes, average precision, evaluation."""

from scn_fx.detection.ap import DISTANCES, RANGES, AveragePrecision, average_precision
from scn_fx.detection.checkpoint import Detector, load_detector, save_detector, trained_detector
from scn_fx.detection.decode import decode
from scn_fx.detection.evaluation import EncoderFunction, detect, encoder_function, evaluate
from scn_fx.detection.head import BevHead, HeadOutput
from scn_fx.detection.scenes import LabelledFrame, held_out_frames

__all__ = [
    "DISTANCES",
    "RANGES",
    "AveragePrecision",
    "BevHead",
    "Detector",
    "EncoderFunction",
    "HeadOutput",
    "LabelledFrame",
    "average_precision",
    "decode",
    "detect",
    "encoder_function",
    "evaluate",
    "held_out_frames",
    "load_detector",
    "save_detector",
    "trained_detector",
]
