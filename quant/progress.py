# SPDX-License-Identifier: Apache-2.0
"""The progress bar of a calibration: rich's, where rich is installed and somebody is looking."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["progress_bar"]


@contextmanager
def progress_bar(
    wanted: bool | None, total: int | None, title: str = "Calibrating"
) -> Iterator[Callable[[], None]]:
    """Yields a function to call after each of `total` (None: unknown) frames.

    `wanted` is True for a bar, False for none, None for one if standard error is a terminal.
    """
    if wanted is False or (wanted is None and not sys.stderr.isatty()):
        yield lambda: None
        return
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    except ImportError:  # a bar is a convenience; calibration works without it
        yield lambda: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(title, total=total)
        yield lambda: progress.advance(task)
