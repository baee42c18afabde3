# SPDX-License-Identifier: Apache-2.0
"""The compiled module, for what must be importable where it is not built."""

from __future__ import annotations

import importlib
from typing import Any

from scn_fx.errors import ScnError

__all__ = ["core"]


def core() -> Any:
    """The compiled module; imported at the first use.

    Raises:
        ScnError: it cannot be imported.
    """
    try:
        return importlib.import_module("scn_fx._core")
    except ImportError as error:
        raise ScnError(
            f"The compiled module scn_fx._core cannot be imported ({error}). Install scn-fx with pip, or "
            "build the extension of a source tree with `make ext`."
        ) from error
