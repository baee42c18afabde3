# SPDX-License-Identifier: Apache-2.0
"""How commands show the warnings of a calibration: one line each on standard error."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from scn_fx.errors import CalibrationWarning

__all__ = ["tidy_warnings"]


@contextmanager
def tidy_warnings() -> Iterator[None]:
    """Shows every CalibrationWarning as "Warning: text", without file, line and source; others as before."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", CalibrationWarning)
        shown = warnings.showwarning

        def show(message: Any, category: type[Warning], *place: Any, **options: Any) -> None:
            if issubclass(category, CalibrationWarning):
                print(f"Warning: {message}", file=sys.stderr)
            else:
                shown(message, category, *place, **options)

        warnings.showwarning = show
        yield
