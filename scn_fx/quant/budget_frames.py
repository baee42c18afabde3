# SPDX-License-Identifier: Apache-2.0
"""The frames that a choice of precisions is made on, out of those of a calibration."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Sized
from typing import Any

import numpy as np

from scn_fx.lidar.given_frames import FrameSequence, FrameStream
from scn_fx.quant.frame_files import FrameFiles

__all__ = ["MOST_FRAMES", "few"]

MOST_FRAMES = 16
"""Choices keep their frames in memory; a calibration may have hundreds."""


def few(frames: Iterable[Sequence[Any]], most: int = MOST_FRAMES) -> Iterable[Sequence[Any]]:
    """At most `most` of `frames` (which have a length, or are a stream), spread evenly over them."""
    if isinstance(frames, FrameStream):
        return list(frames.spread(most))
    if isinstance(frames, FrameFiles | FrameSequence):
        return frames.spread(most)  # reads no other
    assert isinstance(frames, Sized)
    if len(frames) <= most:
        return frames
    chosen = set(np.linspace(0, len(frames) - 1, most).round().astype(int).tolist())
    return [frame for number, frame in enumerate(frames) if number in chosen]
