# SPDX-License-Identifier: Apache-2.0
"""Times in tables."""

from __future__ import annotations

__all__ = ["spread_text"]


def spread_text(values: dict[str, float] | None) -> str:
    """A median with what surrounds it: deciles where there are any, else the extremes; empty for None."""
    if values is None:
        return ""
    low, high = (values[key] for key in (("p10", "p90") if "p10" in values else ("min", "max")))
    return f"{values['median']:.2f} ({low:.2f}…{high:.2f})"
