# SPDX-License-Identifier: Apache-2.0
"""What a measurement of lines gives."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["Figures"]


@dataclass(frozen=True)
class Figures:
    """Percent of what could run, how much that was, and the lines that did not run, by file."""

    percent: float
    total: int
    missing: dict[Path, set[int]]
