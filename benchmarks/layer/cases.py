# SPDX-License-Identifier: Apache-2.0
"""The layers that are timed: 3x3x3 convolutions over a frame, with the numbers of the tests' problems."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from scn_fx import _core
from scn_fx.errors import ArgumentError, MissingPackageError
from scn_fx.lidar import Frame

try:
    from tests.oracle.problems import Problem
    from tests.oracle.strategies import Case
except ModuleNotFoundError as error:
    raise MissingPackageError.of(str(error.name), "test", "The benchmark of layers") from error

__all__ = ["Layer", "Level", "kernels_of", "level_of", "make_layer", "parse_channels"]

Ints = npt.NDArray[np.int32]
Triple = tuple[int, int, int]

_KERNEL: Triple = (3, 3, 3)
_ONE: Triple = (1, 1, 1)
_STRIDE: Triple = (2, 2, 2)
_BOUND = 2**31 - 1
_MOST_CHANNELS = 4096


@dataclass(frozen=True)
class Level:
    """Sites int32 [N, 4] (batch, z, y, x), ascending, in a grid of `shape` (z, y, x)."""

    sites: Ints
    shape: Triple


@dataclass(frozen=True)
class Layer:
    """One convolution, ready to be run."""

    kind: str
    precision: str
    inputs: int
    outputs: int
    """Channels."""
    problem: Any
    """A `_core.ConvolutionProblem`."""
    rows: int
    """Output sites."""
    pairs: int
    """Active pairs: entries of the kernel map that read a row."""

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the active pairs."""
        return self.pairs * self.inputs * self.outputs


def parse_channels(text: str) -> tuple[tuple[int, int], ...]:
    """Widths of a command line: "16,32x64" is 16 to 16 and 32 to 64 channels. ArgumentError for others."""
    widths = []
    for part in text.split(","):
        found = re.fullmatch(r"\s*(\d{1,5})(?:x(\d{1,5}))?\s*", part)
        pair = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
        if not 1 <= min(pair) <= max(pair) <= _MOST_CHANNELS:
            raise ArgumentError(
                f"channels must be numbers from 1 to {_MOST_CHANNELS} with commas between, or IN x OUT as "
                f"5x16; got {part.strip()!r} in {text!r}."
            )
        widths.append(pair)
    return tuple(dict.fromkeys(widths))


def _strided(level: Level) -> tuple[Level, Ints]:
    """The sites behind a convolution with stride 2 and padding 1, and its kernel map."""
    shape: Triple = tuple((n - 1) // 2 + 1 for n in level.shape)  # type: ignore[assignment]
    sites, kernel_map = _core.conv_map(
        level.sites, 1, level.shape, shape, _KERNEL, _STRIDE, _ONE, _ONE, False, _BOUND
    )
    return Level(sites, shape), kernel_map


def level_of(frame: Frame, level: int) -> Level:
    """The sites of a frame behind `level` strided layers, as the levels of an encoder."""
    order = np.lexsort(frame.indices.T[::-1])
    found = Level(np.ascontiguousarray(frame.indices[order], np.int32), frame.grid.spatial_shape)
    for _ in range(level):
        found = _strided(found)[0]
    return found


def make_layer(level: Level, kind: str, precision: str, channels: tuple[int, int], seed: int = 0) -> Layer:
    """A layer as it stands in a network: features behind a ReLU, a ReLU behind it.

    Its result is stored in its own precision, as a next layer of that precision reads it.
    """
    if kind == "subm":
        kernel_map = _core.subm_map(level.sites, 1, level.shape, _KERNEL, _ONE)
        after, stride = level, _ONE
    else:
        after, kernel_map = _strided(level)
        stride = _STRIDE
    case = Case(
        kind, level.sites, 1, level.shape, after.shape, _KERNEL, stride, _ONE, _ONE, (0, 0, 0), channels, seed
    )
    problem = Problem(
        case, precision, precision, ("ReLU", 0.0), stores_int8=precision == "int8", nonnegative=True
    )
    operands = problem.operands_for(len(level.sites), kernel_map)
    return Layer(
        kind,
        precision,
        *channels,
        problem=_core.ConvolutionProblem(**problem.arguments(operands)),
        rows=len(kernel_map),
        pairs=int(np.count_nonzero(kernel_map >= 0)),
    )


def kernels_of(layer: Layer, device: str, wanted: Sequence[str], every: bool) -> list[str]:
    """Names of the kernels that are timed: `wanted`, all that suit, or "" for an engine's choice."""
    if every:
        return list(_core.convolution_kernels(layer.problem, device))
    return list(wanted) or [""]
