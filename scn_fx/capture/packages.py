# SPDX-License-Identifier: Apache-2.0
"""spconv, imported when a model is captured and not before."""

from __future__ import annotations

import importlib
import sys
from typing import Any

from scn_fx.errors import MissingPackageError

__all__ = ["spconv"]


def spconv() -> Any:
    """The module `spconv.pytorch`.

    Raises:
        MissingPackageError: it is not installed, or is 1.x; the CPU flavour of 2.x is enough to capture.
    """
    try:
        return importlib.import_module("spconv.pytorch")
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in ("spconv", "cumm"):
            raise
        old = sys.modules.get("spconv")
        if error.name == "spconv.pytorch" and old is not None:
            raise MissingPackageError(
                f"spconv {getattr(old, '__version__', '1.x')} is installed; capture takes models of 2.x. "
                "Uninstall it, and install that one: pip install 'scn-fx[spconv-cpu]'"
            ) from error
        raise MissingPackageError.of("spconv", "spconv-cpu", "Capturing an spconv model") from error
