# SPDX-License-Identifier: Apache-2.0
"""What a benchmark begins with on any device: frames, and the network's files."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from scn_fx.bench.frames import FrameSet, find_frames
from scn_fx.bench.model import ModelFiles
from scn_fx.bench.settings import BenchSettings
from scn_fx.lidar import Frame

__all__ = ["Say", "described", "prepared", "silent", "table_frame"]

Say = Callable[[str], None]
"""Hears what is being done."""


def silent(text: str) -> None:
    """A listener that does nothing."""


@contextmanager
def prepared(
    settings: BenchSettings, model: Callable[..., ModelFiles], say: Say
) -> Iterator[tuple[FrameSet, ModelFiles]]:
    """Frames and files for the settings; without a `workdir` the files last as long as the context.

    `model` is `prepare_model` or `find_model` of `scn_fx.bench.model`.
    """
    say("frames")
    chosen = find_frames(settings.frames, small=settings.small).select(settings.names)
    with ExitStack() as stack:
        workdir = settings.workdir or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        say("the network's files")
        yield chosen, model(workdir, small=settings.small)


def table_frame(chosen: FrameSet, settings: BenchSettings) -> Frame:
    """The frame for the layer table: the first that was asked for, else the one of median size."""
    return chosen.frames[0 if settings.names else len(chosen.frames) // 2]


def described(frame: Frame, say: Say) -> dict[str, Any]:
    """What a report says of a frame, which is told as well: it is measured next."""
    say(f"{frame.name}, {len(frame):,} voxels")
    return {"frame": frame.name, "source": frame.source, "voxels": len(frame)}
