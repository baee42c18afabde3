# SPDX-License-Identifier: Apache-2.0
"""The dialects of ONNX that a graph can be written in."""

from __future__ import annotations

__all__ = ["DIALECTS", "LIBSPCONV", "SCN_FX"]

LIBSPCONV = "libspconv"
"""What NVIDIA's libspconv reads; the engine too."""
SCN_FX = "scn_fx"
"""Its superset, for the engine alone. Nothing writes it yet."""
DIALECTS = frozenset({LIBSPCONV, SCN_FX})
