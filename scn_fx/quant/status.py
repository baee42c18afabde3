# SPDX-License-Identifier: Apache-2.0
"""What is going on while there is nothing to count: a spinner on a terminal, a line elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from scn_fx.quant.console import one_line

__all__ = ["working"]

_FIRST = 1.0
"""Seconds until the first line: what is done before needs none."""
_PAUSE = 10.0
"""Seconds between lines."""


@contextmanager
def working(text: str, wanted: bool = True) -> Iterator[Callable[[str], None]]:
    """Shows `text` on standard error while the block runs; yields a function that changes the text.

    On a terminal it is a spinner. Elsewhere the text is printed after a second, and a later one when ten
    seconds have passed since, so that logs say what a command is doing. Without `wanted`, nothing is shown.
    """
    if not wanted:
        yield lambda change: None
        return
    if not sys.stderr.isatty():
        lines = _Lines(text)
        try:
            yield lines.say
        finally:
            lines.stop()
        return
    from rich.console import Console
    from rich.text import Text

    with Console(stderr=True).status(Text(text)) as status:
        yield lambda change: status.update(Text(one_line(change)))


class _Lines:
    """Prints the latest text when it is time to."""

    def __init__(self, text: str) -> None:
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self._waiting: str | None = text
        self._timer: threading.Timer | None = None
        self._wait(_FIRST)

    def say(self, text: str) -> None:
        """The text that is true from now on."""
        with self._lock:
            self._waiting = text

    def stop(self) -> None:
        """No more lines."""
        with self._lock:
            timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _wait(self, seconds: float) -> None:
        timer = threading.Timer(seconds, self._show)
        timer.daemon = True
        self._timer = timer
        try:
            timer.start()
        except RuntimeError:  # the system allows no more threads; lines are a convenience
            self._timer = None

    def _show(self) -> None:
        with self._lock:
            if self._timer is None:
                return
            text, self._waiting = self._waiting, None
            if text is not None:
                seconds = time.monotonic() - self._began
                print(f"{one_line(text)} ({seconds:.0f} s)", file=sys.stderr, flush=True)
            self._wait(_PAUSE)
