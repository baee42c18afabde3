# SPDX-License-Identifier: Apache-2.0
"""Objects that a command line names as `package.module:name`."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from typing import Any

from scn_fx.errors import ScnError

__all__ = ["import_object", "is_import_path"]

_PATH = re.compile(r"[^\W\d][\w.]*:[^\W\d][\w.]*")


def is_import_path(text: str) -> bool:
    """Whether `text` has the form `package.module:name`."""
    return _PATH.fullmatch(text) is not None


def import_object(path: str, what: str, error: type[ScnError]) -> Any:
    """What `package.module:name` names; modules in the working folder are found too.

    Raises `error` if it cannot be imported: `what` ("The model") begins the message.
    """
    module_name, _, name = path.partition(":")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        value: Any = importlib.import_module(module_name)
        for part in name.split("."):
            value = getattr(value, part)
    except (ImportError, AttributeError, ValueError) as cause:
        raise error(f"{what} {path!r} cannot be imported: {cause}.") from cause
    return value
