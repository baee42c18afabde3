# SPDX-License-Identifier: Apache-2.0
"""What to measure: on a CPU, on a GPU, and what both mean."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scn_fx.bench.host import processors
from scn_fx.bench.model import PRECISIONS
from scn_fx.bench.timing import check_rounds
from scn_fx.errors import ArgumentError

__all__ = ["BenchSettings", "CpuSettings", "GpuSettings", "parse_precisions", "parse_threads"]


@dataclass(frozen=True, kw_only=True)
class BenchSettings:
    """What a benchmark on any device is told. ArgumentError for an unknown precision, or no round."""

    frames: Path | None = None
    """Folder of real frames; None takes the one that SCN_FX_DATA names, or synthetic frames."""
    names: tuple[str, ...] = ()
    """Names of the frames to use; all if empty."""
    precisions: tuple[str, ...]
    """Of the engine."""
    repeat: int
    """Rounds that count."""
    warmup: int
    """Rounds before them."""
    spconv: bool = True
    """Whether spconv runs as well."""
    layers: str | None = None
    """Precision of the layer table; None takes the last of `precisions`."""
    workdir: Path | None = None
    """Keeps the network's files for the next benchmark; None makes them anew."""
    small: bool = False
    """A narrow network on a small grid, for a quick try."""

    def __post_init__(self) -> None:
        known = ", ".join(PRECISIONS)
        for precision in (*self.precisions, *([self.layers] if self.layers else [])):
            if precision not in PRECISIONS:
                raise ArgumentError(f"Unknown precision {precision!r}; expected some of {known}.")
        if not self.precisions:
            raise ArgumentError(f"Expected at least one precision of {known}, got none.")
        check_rounds(self.repeat, self.warmup)

    @property
    def layer_precision(self) -> str:
        """Precision of the layer table."""
        return self.layers or self.precisions[-1]

    def to_dict(self) -> dict[str, Any]:
        """What a report keeps of them, as plain data."""
        return {
            "precisions": list(self.precisions),
            "repeat": self.repeat,
            "warmup": self.warmup,
            "network": "small" if self.small else "CenterPoint sparse encoder",
        }


@dataclass(frozen=True, kw_only=True)
class CpuSettings(BenchSettings):
    """A benchmark on the CPU. ArgumentError as well for thread counts below 1."""

    precisions: tuple[str, ...] = PRECISIONS
    repeat: int = 5
    warmup: int = 1
    threads: tuple[int, ...] = ()
    """Thread counts; empty stands for one thread and all processors."""
    memory: bool = False
    """Whether to measure memory and imports, in new processes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if any(n < 1 for n in self.threads):
            raise ArgumentError(f"threads must be at least 1, got {min(self.threads)}.")

    @property
    def thread_counts(self) -> tuple[int, ...]:
        """Ascending thread counts to measure."""
        return tuple(sorted(set(self.threads) or {1, processors()}))

    def to_dict(self) -> dict[str, Any]:
        """What a report keeps of them, as plain data."""
        return {"threads": list(self.thread_counts), **super().to_dict()}


@dataclass(frozen=True, kw_only=True)
class GpuSettings(BenchSettings):
    """A benchmark on an NVIDIA GPU, where memory is always measured. ArgumentError if `device` is no GPU."""

    precisions: tuple[str, ...] = ("fp16", "int8")
    repeat: int = 100
    warmup: int = 10
    device: str = "cuda"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not re.fullmatch(r"cuda(:\d{1,3})?", self.device):
            raise ArgumentError(f"device must be 'cpu', 'cuda' or 'cuda:N', got {self.device!r}.")

    @property
    def number(self) -> int:
        """Which GPU."""
        return int(self.device.partition(":")[2] or 0)


def parse_threads(text: str) -> tuple[int, ...]:
    """Thread counts of a command line, "1,2". ArgumentError for anything but whole numbers."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ArgumentError(
            f"threads must be whole numbers with commas between, as 1,2; got {text!r}."
        ) from None


def parse_precisions(text: str) -> tuple[str, ...]:
    """Precisions of a command line, "fp32,int8", each once."""
    return tuple(dict.fromkeys(part.strip() for part in text.split(",")))
