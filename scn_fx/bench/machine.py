# SPDX-License-Identifier: Apache-2.0
"""The machine under the benchmark: its processors, and the peak that its arithmetic reaches."""

from __future__ import annotations

import os
import platform
from typing import Any

from scn_fx import __version__, _core
from scn_fx.bench.host import SPCONV, cpu_name, installed, processors

__all__ = ["PEAK_KINDS", "describe_machine", "measured_peaks"]

PEAK_KINDS = ("fp32", "int8")
_SECONDS = 0.25
"""Length of a peak measurement: long enough for the clock frequency to settle."""


def measured_peaks(threads: int, seconds: float = _SECONDS) -> dict[str, float | None]:
    """Operations per second by "fp32" and "int8" of loops without memory traffic, on `threads` threads.

    A multiply-accumulate is two operations. None where this build of the engine cannot measure it.
    """
    measure = getattr(_core, "measure_peak", None)
    if measure is None:
        return dict.fromkeys(PEAK_KINDS)
    return {kind: float(measure(kind, threads, seconds)) for kind in PEAK_KINDS}


def describe_machine() -> dict[str, Any]:
    """Processor, versions, and the load of the last minute ("load", in processors) as plain data."""
    packages = {name: installed((name,)) for name in ("numpy", "torch")}
    spconv = installed(SPCONV)
    return {
        "scn_fx": __version__,
        "cpu": cpu_name(),
        "processors": processors(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "isa": _core.cpu_features()["isa"],
        "platform": platform.platform(),
        "python": platform.python_version(),
        **{name: found[1] if found else None for name, found in packages.items()},
        "spconv": " ".join(spconv) if spconv else None,
    }
