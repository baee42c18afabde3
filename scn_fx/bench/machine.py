# SPDX-License-Identifier: Apache-2.0
"""The machine under the benchmark: its processors, and the peak that its arithmetic reaches."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from scn_fx import __version__, _core

__all__ = ["PEAK_KINDS", "describe_machine", "measured_peaks", "processors", "spconv_version"]

PEAK_KINDS = ("fp32", "int8")
_SECONDS = 0.25
"""Length of a peak measurement: long enough for the clock frequency to settle."""
_SPCONV = ("spconv", "spconv-cu118", "spconv-cu120", "spconv-cu121", "spconv-cu124", "spconv-cu126")


def processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def measured_peaks(threads: int, seconds: float = _SECONDS) -> dict[str, float | None]:
    """Operations per second by "fp32" and "int8" of loops without memory traffic, on `threads` threads.

    A multiply-accumulate is two operations. None where this build of the engine cannot measure it.
    """
    measure = getattr(_core, "measure_peak", None)
    if measure is None:
        return dict.fromkeys(PEAK_KINDS)
    return {kind: float(measure(kind, threads, seconds)) for kind in PEAK_KINDS}


def spconv_version() -> str | None:
    """Name and version of the installed spconv, if there is one."""
    for name in _SPCONV:
        try:
            return f"{name} {version(name)}"
        except PackageNotFoundError:
            continue
    return None


def describe_machine() -> dict[str, Any]:
    """Processor, versions, and the load of the last minute ("load", in processors) as plain data."""
    features = _core.cpu_features()
    packages: dict[str, str | None] = {}
    for name in ("numpy", "torch"):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = None
    return {
        "scn_fx": __version__,
        "cpu": _cpu_name(),
        "processors": processors(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "isa": features["isa"],
        "platform": platform.platform(),
        "python": platform.python_version(),
        **packages,
        "spconv": spconv_version(),
    }


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()
