# SPDX-License-Identifier: Apache-2.0
"""How long the parts of a step take."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["Stopwatch"]

_WARM_UP = 5


class Stopwatch:
    """Times named parts, waiting for the device before and after each; does nothing unless `wanted`."""

    def __init__(self, device: torch.device, wanted: bool) -> None:
        self._device, self._wanted = device, wanted
        self._times: dict[str, list[float]] = {}

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.current_stream(self._device).synchronize()
        return time.perf_counter()

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Times what is done within."""
        if not self._wanted:
            yield
            return
        began = self._now()
        yield
        self._times.setdefault(name, []).append(self._now() - began)

    def table(self) -> str:
        """Mean milliseconds of each part, without the first calls, which compile and allocate."""
        lines = ["ms per step:"]
        for name, times in self._times.items():
            used = times[_WARM_UP:] or times
            lines.append(f"  {name:<20}{1e3 * sum(used) / len(used):9.1f}")
        return "\n".join(lines)
