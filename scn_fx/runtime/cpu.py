# SPDX-License-Identifier: Apache-2.0
"""The engine on the CPU."""

from __future__ import annotations

from typing import Any

from scn_fx import _core
from scn_fx.errors import ArgumentError
from scn_fx.runtime.backend import Options
from scn_fx.runtime.host_arrays import host_frame, like_all

__all__ = ["CpuBackend"]


class CpuBackend:
    """Runs frames in the caller's thread and a pool of its own; every result is a new array."""

    device = "cpu"

    def __init__(self, options: Options) -> None:
        self._options = options
        self._core = self._make()

    def _make(self, trace: bool = False) -> _core.Engine:
        o = self._options
        return _core.Engine(
            o.source, o.precision, o.threads, trace, o.spatial_shape, memory_limit=o.memory_limit
        )

    @property
    def threads(self) -> int:
        """Number of CPU threads."""
        return self._core.threads

    @property
    def isa(self) -> str:
        """Instruction set of the kernels."""
        return self._core.isa

    @property
    def ndim(self) -> int:
        """See `Backend.ndim`."""
        return self._core.ndim

    @property
    def float32(self) -> bool:
        """See `Backend.float32`."""
        return self._core.float32

    def run(self, features: Any, indices: Any, batch_size: int, stream: Any, copy: bool) -> list[Any]:
        """See `Backend.run`; `copy` has no meaning here."""
        if stream is not None:
            raise ArgumentError("This engine runs on the CPU, which has no streams. Leave out stream.")
        outputs = self._core.run(*host_frame(features, indices), batch_size)
        return like_all(outputs, features)

    def trace(self, features: Any, indices: Any, batch_size: int) -> list[dict[str, Any]]:
        """See `Backend.trace`."""
        return self._make(trace=True).trace(*host_frame(features, indices), batch_size)

    def profile(self, features: Any, indices: Any, batch_size: int) -> list[dict[str, Any]]:
        """See `Backend.profile`."""
        return self._core.profile(*host_frame(features, indices), batch_size)

    def synchronize(self) -> None:
        """Does nothing: a frame is done when its call returns."""

    def describe(self) -> dict[str, Any]:
        """See `Backend.describe`."""
        return self._core.describe()
