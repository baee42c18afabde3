# SPDX-License-Identifier: Apache-2.0
"""TOML texts, read with the same strictness as JSON. Before Python 3.11 it needs tomli."""

from __future__ import annotations

import sys
from typing import Any

from scn_fx.files.json_text import TextError, decoded

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["parse_toml"]


def parse_toml(data: bytes) -> dict[str, Any]:
    """The content of a TOML document in UTF-8, with or without a byte order mark.

    Raises TextError for text that is none; TOML itself allows no key twice.
    """
    try:
        found: dict[str, Any] = tomllib.loads(decoded(data))
    except TextError:
        raise
    except (ValueError, RecursionError, MemoryError) as error:
        raise TextError(str(error) or type(error).__name__) from error
    return found
