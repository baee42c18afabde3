# SPDX-License-Identifier: Apache-2.0
"""The progress of a calibration with the time left: rich's bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

__all__ = ["Bar", "progress_bar"]

_FIRST = 1.0
"""Seconds until the first line: what is done before needs none."""
_PAUSE = 10.0
_LONGEST_PAUSE = 60.0
"""Seconds between lines, at first and at last: a log of a night has some hundred."""


class Bar:
    """Counts frames and parts of frames; without anything to show them it does nothing."""

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


class _Lines:
    """Plain lines for logs and pipes: the first after a second, later ones ever more rarely."""

    def __init__(self, title: str, total: int | None, done: int) -> None:
        self._title, self._total, self._first = title, total, float(done)
        self._frames, self._completed = done, float(done)
        self._began = time.monotonic()
        self._next = self._began + _FIRST
        self._shown = -1

    def update(self, task: Any, *, completed: float, frames: int | None = None) -> None:
        """Takes the state, and prints it if it is time to."""
        self._completed = completed
        self._frames = self._frames if frames is None else frames
        now = time.monotonic()
        if now >= self._next:
            self._next = now + min(max(_PAUSE, (now - self._began) / 10), _LONGEST_PAUSE)
            self._print(now)

    def close(self) -> None:
        """The last state, if earlier ones were printed."""
        if self._shown not in (-1, self._frames):
            self._print(time.monotonic())

    def _print(self, now: float) -> None:
        self._shown = self._frames
        elapsed, part = now - self._began, self._completed - self._first
        counted, left = str(self._frames), ""
        if self._total is not None:
            counted = f"{self._frames}/{self._total}"
            if part > 0:
                rest = max(self._total - self._completed, 0.0)
                left = f", {_clock(elapsed * rest / part)} left"
        print(f"{self._title}: {counted}, {_clock(elapsed)}{left}", file=sys.stderr, flush=True)


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


@contextmanager
def progress_bar(
    wanted: bool | None, total: int | None, title: str = "Calibrating", done: int = 0
) -> Iterator[Bar]:
    """Progress over `total` frames (None: unknown), `done` of which are through already, with the time left.

    `wanted` is True for a bar on a terminal and plain lines elsewhere, False for neither, None for a bar if
    standard error is a terminal.
    """
    terminal = sys.stderr.isatty()
    if wanted is False or (wanted is None and not terminal):
        yield Bar()
        return
    if not terminal:
        lines = _Lines(title, total, done)
        yield Bar(lines, None, done)
        lines.close()
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
