# SPDX-License-Identifier: Apache-2.0
"""Paths that stand for a descriptor that this process holds open: /dev/stdin, a shell's <(command)."""

from __future__ import annotations

import os
import re

__all__ = ["own_descriptor"]

_STANDARD = {"stdin": 0, "stdout": 1, "stderr": 2}
_PATH = re.compile(r"/dev/(stdin|stdout|stderr)|(?:/dev|/proc/self)/fd/(\d{1,9})")


def own_descriptor(path: str | os.PathLike[str]) -> int | None:
    """The number of the open descriptor that `path` stands for; None for every other path."""
    found = _PATH.fullmatch(os.fspath(path))
    if found is None:
        return None
    return _STANDARD[found[1]] if found[1] else int(found[2])
