# SPDX-License-Identifier: Apache-2.0
"""The frames that are kept in memory while layers are improved one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Sized
from itertools import islice
from typing import Any

import torch
from torch.fx import GraphModule

from scn_fx.errors import CalibrationError
from scn_fx.graph import layers
from scn_fx.quant import OUTLIERS
from scn_fx.quant.frames import input_spec
from scn_fx.quant.screening import FrameScreen

__all__ = ["few_frames"]


def few_frames(
    graph: GraphModule, frames: Iterable[Sequence[Any]], limit: int, outliers: str = "drop"
) -> list[list[torch.Tensor]]:
    """At most `limit` frames on the graph's device, checked, with features rounded to float16 and widened.

    Of a sequence they are spread evenly over its length; of any other iterable they are the first.

    Raises CalibrationError for no frames or a frame that does not fit the graph, NonFiniteError for NaN.
    """
    if limit < 1:
        raise CalibrationError(f"frames_limit must be at least 1, got {limit}.")
    if outliers not in OUTLIERS:
        raise CalibrationError(f"Unknown outliers={outliers!r}; expected one of {', '.join(OUTLIERS)}.")
    if not isinstance(frames, Iterable) and not hasattr(frames, "__getitem__"):
        raise CalibrationError(
            f"frames must be an iterable of (features, indices), got {type(frames).__name__}."
        )
    device = _device(graph)
    screen = FrameScreen(input_spec(graph), outliers)
    numbered = enumerate(_spread(frames, limit))
    found = [[t.to(device) for t in tensors] for _, tensors in screen.passed(numbered)]
    if not any(len(tensors[0]) for tensors in found):
        raise CalibrationError("There are no frames with voxels. Improving a graph needs at least one.")
    return found


def _spread(frames: Any, limit: int) -> Iterator[Sequence[Any]]:
    if isinstance(frames, Sized) and hasattr(frames, "__getitem__"):
        count = len(frames)
        chosen = range(count) if count <= limit else [i * count // limit for i in range(limit)]
        return (frames[i] for i in chosen)
    return islice(iter(frames), limit)


def _device(graph: GraphModule) -> torch.device:
    for layer in layers(graph):
        if layer.spec.weighted:
            return layer.weight.device
    return torch.device("cpu")
