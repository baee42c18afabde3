# SPDX-License-Identifier: Apache-2.0
"""What `scn_fx.Engine` asks of the place where a network runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

__all__ = ["Backend", "Options"]


@dataclass(frozen=True)
class Options:
    """The options of an engine, checked. Zero and None leave a choice to the backend."""

    source: str | bytes
    """Path or bytes of the ONNX file, or plan."""
    precision: str = ""
    """"fp32" or empty."""
    spatial_shape: Sequence[int] | None = None
    memory_limit: int = 0
    """Bytes of host memory."""
    threads: int = 0
    """CPU only."""
    graph: bool = True
    """CUDA only, as all that follow."""
    max_batch: int = 0
    max_sites: int = 0


class Backend(Protocol):
    """A network on one device. `batch_size` 0 is the exported one."""

    @property
    def device(self) -> str:
        """``"cpu"`` or ``"cuda:0"``."""

    @property
    def threads(self) -> int | None:
        """Number of CPU threads; None on other devices."""

    @property
    def isa(self) -> str | None:
        """Instruction set of the CPU kernels; None on other devices."""

    @property
    def ndim(self) -> int:
        """Dimensions of the network; its frames and results have indices int32 [N, 4] all the same."""

    @property
    def float32(self) -> bool:
        """Whether everything runs in float32."""

    def run(self, features: Any, indices: Any, batch_size: int, stream: Any, copy: bool) -> list[Any]:
        """Outputs of a frame in the file's order, as arrays of the kind of `features`."""

    def trace(self, features: Any, indices: Any, batch_size: int) -> list[dict[str, Any]]:
        """Each node's `name`, `op_type`, `values` and `indices` (or None) as numpy arrays."""

    def profile(self, features: Any, indices: Any, batch_size: int) -> list[dict[str, Any]]:
        """Each stage's `kind`, `name`, `seconds` and `macs`."""

    def synchronize(self) -> None:
        """Waits for all frames, and raises what went wrong in them."""

    def describe(self) -> dict[str, Any]:
        """The plan as plain data."""
