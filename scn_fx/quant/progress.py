# SPDX-License-Identifier: Apache-2.0
"""The progress bar of a calibration: rich's, where rich is installed and somebody is looking."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["Bar", "progress_bar"]


class Bar:
    """Counts frames and parts of frames; without a bar on the screen it does nothing."""

    def __init__(self, progress: Any = None, task: Any = None, done: int = 0) -> None:
        self._progress = progress
        self._task = task
        self._done = float(done)
        self._steps = done

    def advance(self, share: float) -> None:
        """A share of a frame is done: layers count, so that a time is known before the first frame ends."""
        if self._progress is not None:
            self._done += share
            self._progress.update(self._task, completed=self._done)

    def step(self) -> None:
        """One more whole part is done, where there are no shares."""
        self._steps += 1
        self.finish_frame(self._steps)

    def finish_frame(self, frames: int) -> None:
        """So many frames are through."""
        if self._progress is not None:
            # Frames that were read ahead count a little already.
            self._done = max(self._done, float(frames))
            self._progress.update(self._task, completed=self._done, frames=frames)


@contextmanager
def progress_bar(
    wanted: bool | None, total: int | None, title: str = "Calibrating", done: int = 0
) -> Iterator[Bar]:
    """A bar for `total` frames (None: unknown), `done` of which are through already, with the time left.

    `wanted` is True for a bar, False for none, None for one if standard error is a terminal.
    """
    if wanted is False or (wanted is None and not sys.stderr.isatty()):
        yield Bar()
        return
    try:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    except ImportError:  # a bar is a convenience; calibration works without it
        yield Bar()
        return
    columns: list[Any] = [TextColumn("{task.description}"), BarColumn()]
    if total is None:
        columns += [TextColumn("{task.fields[frames]} frames"), TimeElapsedColumn()]
    else:
        columns += [
            TextColumn("{task.fields[frames]}/{task.total:.0f}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        ]
    with Progress(*columns, console=Console(stderr=True), speed_estimate_period=60.0) as progress:
        task = progress.add_task(title, total=total, completed=done, frames=done)
        yield Bar(progress, task, done)
