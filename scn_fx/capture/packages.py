# SPDX-License-Identifier: Apache-2.0
"""spconv, imported when a model is captured and not before."""

from __future__ import annotations

import importlib
from typing import Any

from scn_fx.errors import MissingPackageError

__all__ = ["spconv"]


def spconv() -> Any:
    """The module `spconv.pytorch`.

    Raises:
        MissingPackageError: it is not installed; the CPU flavour is enough to capture.
    """
    try:
        return importlib.import_module("spconv.pytorch")
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in ("spconv", "cumm"):
            raise
        raise MissingPackageError.of("spconv", "spconv-cpu", "Capturing an spconv model") from error
