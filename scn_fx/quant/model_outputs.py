# SPDX-License-Identifier: Apache-2.0
"""Outputs of a model as texts of a command line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from scn_fx.errors import CalibrationError

__all__ = ["parse_outputs"]

_INDEX = re.compile(r"-?\d+")


def parse_outputs(texts: Sequence[str]) -> Any:
    """What `output=` of `scn_fx.capture` takes, from texts such as "0", "spatial_features" or "1,conv3".

    Commas part the steps of a path; a whole number is an index. One text gives one output, several a list;
    none gives None. Raises CalibrationError for a text with an empty step.
    """
    paths = [_path(text) for text in texts]
    if len(paths) < 2:
        return paths[0] if paths else None
    return paths


def _path(text: str) -> Any:
    steps = [step.strip() for step in text.split(",")]
    if not all(steps):
        raise CalibrationError(
            f"Expected an output as an index, a key, or several of them with commas between ('1,conv3'), got "
            f"{text!r}."
        )
    path = tuple(int(step) if _INDEX.fullmatch(step) else step for step in steps)
    return path[0] if len(path) == 1 else path
