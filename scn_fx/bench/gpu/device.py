# SPDX-License-Identifier: Apache-2.0
"""The GPU under the benchmark: its clock, its memory, and what is made on it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy.typing as npt

from scn_fx.bench.model import ModelFiles
from scn_fx.errors import ArgumentError, MissingPackageError
from scn_fx.runtime import Engine
from scn_fx.runtime.cuda import check_device

__all__ = ["Gpu", "Sample"]


@dataclass(frozen=True)
class Sample:
    """Seconds of two single calls of one subject."""

    event: float
    """Between CUDA events before and after a call."""
    wall: float
    """A call and waiting for it, on the clock of the host."""


class Gpu:
    """GPU `number` through torch.

    Raises ArgumentError if the engine or torch cannot use it, MissingPackageError without torch.
    """

    def __init__(self, number: int) -> None:
        check_device(number)
        try:
            import torch
        except ModuleNotFoundError as error:
            raise MissingPackageError.of("torch", "torch", "The benchmark on a GPU") from error
        if not torch.cuda.is_available():
            raise ArgumentError(
                f"torch {version('torch')} cannot use the GPU. Install a build of torch with CUDA."
            )
        torch.cuda.set_device(number)
        self._torch: Any = torch
        self._number = number
        self._before, self._after = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    @property
    def name(self) -> str:
        """As the driver calls it."""
        return str(self._torch.cuda.get_device_name(self._number))

    def used_bytes(self) -> int:
        """Memory in use, by whomever."""
        self._torch.cuda.synchronize()
        free, total = self._torch.cuda.mem_get_info(self._number)
        return int(total - free)

    def upload(self, frame: Iterable[npt.NDArray[Any]]) -> tuple[Any, Any]:
        """Features (float16) and indices of a frame in the GPU's memory."""
        arrays = (self._torch.from_numpy(array) for array in frame)
        features, indices = (array.to(f"cuda:{self._number}") for array in arrays)
        return features.half(), indices

    def engine(self, file: Path, precision: str | None, graph: bool) -> Engine:
        """An engine on this GPU."""
        return Engine(file, f"cuda:{self._number}", precision=precision, graph=graph)

    def peer(self, files: ModelFiles) -> Any:
        """See `SpconvGpuPeer`."""
        from scn_fx.bench.gpu.peer import SpconvGpuPeer

        return SpconvGpuPeer(files, f"cuda:{self._number}")

    def measure(self, run: Callable[[], Any]) -> Sample:
        """Two single calls, each with nothing else on the GPU."""
        cuda = self._torch.cuda
        cuda.synchronize()
        self._before.record()
        result = run()
        self._after.record()
        self._after.synchronize()
        del result
        event = self._before.elapsed_time(self._after) / 1e3
        cuda.synchronize()
        began = time.perf_counter()
        result = run()
        cuda.synchronize()
        wall = time.perf_counter() - began
        del result
        return Sample(event, wall)
