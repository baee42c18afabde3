# SPDX-License-Identifier: Apache-2.0
"""Whether memory grows over a long run."""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path
from statistics import median

__all__ = ["ALLOWED", "Watch", "gpu_bytes", "resident_bytes"]

ALLOWED = 4 << 20
"""Bytes of growth that a run may show: 40 bytes a frame in 100,000 of them; allocators breathe."""


class Watch:
    """Samples of a process's memory.

    The rule: the median of the last fifth of the samples exceeds that of the second fifth by `ALLOWED` at
    most. The first fifth is warm-up: buffers grow, libraries load.
    """

    def __init__(self, read: Callable[[], int]) -> None:
        self._read = read
        self.samples: list[int] = []

    def sample(self) -> None:
        """Take one."""
        self.samples.append(self._read())

    def growth(self) -> int:
        """Bytes, negative if memory shrank; 0 for fewer than five samples."""
        fifth = len(self.samples) // 5
        if not fifth:
            return 0
        return int(median(self.samples[-fifth:]) - median(self.samples[fifth : 2 * fifth]))


def resident_bytes() -> int:
    """Memory of this process that is resident now (RSS), where Linux tells."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()


def gpu_bytes(device: str) -> Callable[[], int]:
    """Reads the memory in use on a GPU, by all processes: the soak wants it for itself."""
    from scn_fx.bench.gpu.device import Gpu

    return Gpu(int(device.partition(":")[2] or 0)).used_bytes
