# SPDX-License-Identifier: Apache-2.0
"""The dialects of ONNX that a graph can be written in."""

from __future__ import annotations

from scn_fx.errors import ExportError

__all__ = ["DIALECTS", "LIBSPCONV", "SCN_FX", "check_dialect"]

LIBSPCONV = "libspconv"
"""What NVIDIA's libspconv reads; the engine too."""
SCN_FX = "scn_fx"
"""Its superset, for the engine alone."""
DIALECTS = frozenset({LIBSPCONV, SCN_FX})


def check_dialect(dialect: str) -> None:
    """ExportError unless there is such a dialect."""
    if dialect not in DIALECTS:
        raise ExportError(f"dialect must be '{LIBSPCONV}' or '{SCN_FX}', got {dialect!r}.")
