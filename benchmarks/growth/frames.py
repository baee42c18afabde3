# SPDX-License-Identifier: Apache-2.0
"""Synthetic frames of any density, and batches of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from scn_fx.bench.frames import SMALL_GRID
from scn_fx.errors import ArgumentError
from scn_fx.lidar import CENTERPOINT_GRID, SpinningLidar, collate, simulate, street_scene, voxelize

__all__ = ["SENSORS", "Batch", "Size", "grown_frame", "make_batch", "sizes_of"]

Pair = tuple[npt.NDArray[Any], npt.NDArray[np.int32]]

SENSORS = ((32, 1084, 10), (64, 1084, 10), (64, 2168, 20), (128, 2168, 20))
"""Beams, firings per turn and turns of sensors that fill CenterPoint's grid more and more: the synthetic
frame's, about 80,000 voxels, up to more than 300,000."""
_CLOSE = 0.999
"""Share of the wanted voxels that is near enough."""


@dataclass(frozen=True, order=True)
class Size:
    """How much is run at once."""

    batch: int
    """Frames."""
    voxels: int
    """Of each, about."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Frames of one size, collated."""

    size: Size
    features: npt.NDArray[np.float16]
    indices: npt.NDArray[np.int32]

    def __iter__(self) -> Iterator[npt.NDArray[Any]]:
        return iter((self.features, self.indices))

    def __len__(self) -> int:
        return len(self.indices)


def sizes_of(voxels: tuple[int, ...], batches: tuple[int, ...], batch_voxels: int) -> list[Size]:
    """Single frames of `voxels`, and `batches` of frames of `batch_voxels`, each size once, ascending."""
    wanted = {Size(1, count) for count in voxels} | {Size(count, batch_voxels) for count in batches}
    return sorted(wanted)


def make_batch(size: Size, *, small: bool = False) -> Batch:
    """Frames of different streets, or with `small` for the small network; the errors of `grown_frame`."""
    make = _small if small else grown_frame
    return Batch(size, *collate(make(size.voxels, seed) for seed in range(size.batch)))


@lru_cache(maxsize=16)
def grown_frame(voxels: int, seed: int = 0) -> Pair:
    """A frame of about so many voxels in CenterPoint's grid, as the sparsest of `SENSORS` that sees as many.

    Its oldest points are left out: of a sensor of ten turns that sees too much, turns and a part of one.
    Raises ArgumentError if none of the sensors sees as many.
    """
    for number in range(len(SENSORS)):
        points = _points(number, seed)
        most = len(voxelize(points, CENTERPOINT_GRID))
        if most >= voxels * _CLOSE:
            break
    else:
        raise ArgumentError(
            f"A frame may have {most:,} voxels, which is what the densest synthetic sensor sees in street "
            f"{seed}, got {voxels:,}. Ask for fewer."
        )
    fewer, enough = 0, len(points)
    found = voxelize(points, CENTERPOINT_GRID)
    while not voxels * _CLOSE <= len(found) <= voxels:
        middle = (fewer + enough) // 2
        found = voxelize(points[:middle], CENTERPOINT_GRID)
        fewer, enough = (middle, enough) if len(found) < voxels else (fewer, middle)
    return found.features, found.indices


@lru_cache(maxsize=1)
def _points(number: int, seed: int) -> npt.NDArray[np.float32]:
    beams, columns, sweeps = SENSORS[number]
    return simulate(street_scene(seed), SpinningLidar(beams=beams, columns=columns), sweeps=sweeps, seed=seed)


def _small(voxels: int, seed: int) -> Pair:
    from scn_fx.zoo import demo_frame

    features, indices = demo_frame(seed, voxels, grid=SMALL_GRID)
    return features.half().numpy(), indices.int().numpy()
