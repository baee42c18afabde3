# SPDX-License-Identifier: Apache-2.0
"""Voxel frames for tests: synthetic ones made here, and real ones when SCN_FX_DATA names their folder."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

__all__ = [
    "Frame",
    "available_frames",
    "data_folder",
    "load_frame",
    "random_sites",
    "read_tensor",
    "synthetic_frame",
]

GRID = (41, 1440, 1440)
_DTYPES = {1: "<i4", 2: "<f2", 3: "<f4", 4: "<i8", 5: "<u8", 6: "<u4", 7: "i1", 8: "u1"}


@dataclass(frozen=True)
class Frame:
    """Features float16 [N, C], indices int32 [N, 4] (batch, z, y, x) in a grid of `shape` sites."""

    name: str
    features: npt.NDArray[np.float16]
    indices: npt.NDArray[np.int32]
    shape: tuple[int, int, int]


def data_folder() -> Path | None:
    """The folder of real frames and golden results that SCN_FX_DATA names, if any."""
    value = os.environ.get("SCN_FX_DATA")
    return Path(value) if value else None


def read_tensor(path: Path) -> npt.NDArray[np.generic]:
    """A `.tensor` file: int32 magic, ndim, dtype code and dimensions, then the raw data."""
    data = path.read_bytes()
    magic, ndim, code = np.frombuffer(data, "<u4", 3).tolist()
    assert magic == 0x33FF1101, f"{path} is not a .tensor file"
    shape = np.frombuffer(data, "<i4", ndim, 12).tolist()
    return np.frombuffer(data, _DTYPES[code], offset=12 + 4 * ndim).reshape(shape)


def random_sites(
    rng: np.random.Generator,
    count: int,
    shape: tuple[int, ...],
    batch_size: int = 1,
    *,
    ordered: bool = False,
) -> npt.NDArray[np.int32]:
    """`count` distinct sites (fewer if the grid is smaller), in random or ascending order."""
    cells = batch_size * int(np.prod(shape))
    if cells <= 4 * count:
        keys = rng.permutation(cells)[:count]
    else:
        drawn = np.unique(rng.integers(0, cells, 2 * count + 16))
        keys = rng.permutation(drawn)[:count]
    keys = np.sort(keys) if ordered else keys
    return np.stack(np.unravel_index(keys, (batch_size, *shape)), axis=1).astype(np.int32)


def synthetic_frame(
    seed: int = 0, count: int = 6000, shape: tuple[int, int, int] = GRID, *, ordered: bool = False
) -> Frame:
    """Patches of ground and of walls, denser near the middle; features x, y, z, intensity, time.

    Sites come in patches because LiDAR's do: strided layers then keep about as many sites as they read.
    """
    rng = np.random.default_rng(seed)
    z, y, x = shape
    patches = 1 + count // 60
    radius, angle = min(y, x) / 2 * rng.random(patches) ** 1.5, rng.random(patches) * 2 * np.pi
    low = z // 5 + rng.integers(0, 2, patches)
    centres = np.stack([low, y / 2 + radius * np.sin(angle), x / 2 + radius * np.cos(angle)], 1)
    sizes = np.where(
        rng.random((patches, 1)) < 0.6, (1, 12, 12), rng.permuted([(10, 14, 1)] * patches, axis=1)
    )
    patch = rng.integers(0, patches, 3 * count)
    points = (centres[patch] + rng.random((3 * count, 3)) * sizes[patch]).astype(np.int64)
    points = points[((points >= 0) & (points < shape)).all(1)]
    keys = np.unique(np.ravel_multi_index(points.T, shape))
    keys = rng.permutation(keys)[:count]
    keys = np.sort(keys) if ordered else keys
    zyx = np.stack(np.unravel_index(keys, shape), 1)
    metres = (zyx[:, ::-1] - np.array([x / 2, y / 2, z / 1.6])) * (0.075, 0.075, 0.2)
    other = np.stack([rng.integers(0, 256, len(keys)), rng.integers(0, 10, len(keys)) * 0.05], 1)
    indices = np.concatenate([np.zeros((len(keys), 1)), zyx], 1).astype(np.int32)
    return Frame("synthetic", np.concatenate([metres, other], 1).astype(np.float16), indices, shape)


def available_frames() -> list[str]:
    """Names that `load_frame` can serve here: the synthetic frame, and the real one if there is data."""
    return ["synthetic"] + (["nuscenes"] if data_folder() else [])


def load_frame(name: str) -> Frame:
    """A frame by its name."""
    if name == "synthetic":
        return synthetic_frame()
    data = data_folder()
    assert name == "nuscenes" and data is not None, f"no frame {name!r} without SCN_FX_DATA"
    features = np.asarray(read_tensor(data / "nuscenes_voxels.features.tensor"), np.float16)
    indices = np.asarray(read_tensor(data / "nuscenes_voxels.indices_zyx.tensor"), np.int32)
    return Frame(name, features, indices, GRID)
