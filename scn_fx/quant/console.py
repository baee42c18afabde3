# SPDX-License-Identifier: Apache-2.0
"""How commands show texts: warnings in one line, names harmless, every character in every locale."""

from __future__ import annotations

import codecs
import os
import shutil
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from scn_fx.errors import CalibrationWarning, CaptureWarning

__all__ = ["one_line", "output_width", "show_every_character", "tidy_warnings"]

_OWN = (CalibrationWarning, CaptureWarning)
_HANDLER = "scn_fx.shown"
_PLAIN = {"→": "->", "…": "...", "×": "x", "±": "+-", "─": "-"}  # noqa: RUF001


@contextmanager
def tidy_warnings() -> Iterator[None]:
    """Shows our own warnings as "Warning: text", without file, line and source, and no other package's.

    Those are about code that the user has not written. `python -W` and PYTHONWARNINGS bring them back.
    """
    with warnings.catch_warnings():
        if not sys.warnoptions:
            warnings.simplefilter("ignore")
        for category in _OWN:
            warnings.simplefilter("always", category)
        shown = warnings.showwarning

        def show(message: Any, category: type[Warning], *place: Any, **options: Any) -> None:
            if issubclass(category, _OWN):
                print(f"Warning: {one_line(str(message))}", file=sys.stderr)
            else:
                shown(message, category, *place, **options)

        warnings.showwarning = show
        yield


def one_line(text: str) -> str:
    """`text` with its control characters written out (\\n, \\x1b): what a file calls itself moves no cursor.

    Surrogates stand for the bytes of file names that are not UTF-8, and stay.
    """
    return "".join(c if c.isprintable() or "\udc80" <= c <= "\udcff" else repr(c)[1:-1] for c in text)


def output_width() -> int | None:
    """Columns of the terminal behind standard output, or those that COLUMNS says; None for any number."""
    if sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdecimal():
        return shutil.get_terminal_size().columns
    return None


def show_every_character() -> None:
    """Standard output and error take any text, in any locale.

    In an ASCII locale (LC_ALL=C) arrows and the like become ASCII, other characters their escapes; file names
    that are not in the locale's encoding come out as the bytes that they are.
    """
    codecs.register_error(_HANDLER, _shown)
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors=_HANDLER)


def _shown(error: UnicodeError) -> tuple[bytes, int]:
    assert isinstance(error, UnicodeEncodeError)
    found = b""
    for character in error.object[error.start : error.end]:
        if "\udc80" <= character <= "\udcff":
            found += bytes([ord(character) - 0xDC00])
        else:
            found += _PLAIN.get(character, character).encode("ascii", "backslashreplace")
    return found, error.end
