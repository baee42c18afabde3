# SPDX-License-Identifier: Apache-2.0
"""Real sweeps of several sensors, from the folder that SCN_FX_DATA names."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from scn_fx.errors import ArgumentError
from scn_fx.lidar import DATA_VARIABLE, read_points

__all__ = ["data_folder", "sweeps", "unit_intensity"]

_FULL = 255.0  # intensity of the brightest point, in nuScenes' scale


def data_folder(*parts: str) -> Path:
    """A folder inside SCN_FX_DATA; ArgumentError if there is none."""
    named = os.environ.get(DATA_VARIABLE)
    folder = Path(named, *parts) if named else None
    if folder is None or not folder.is_dir():
        raise ArgumentError(
            f"Expected {DATA_VARIABLE} to name a folder with {'/'.join(parts)}; "
            + (f"{folder} is no folder." if folder else "it is not set.")
        )
    return folder


def sweeps(folder: Path) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    """Name and points [P, 4+] of each `*.bin` sweep of a folder, by name; without rows at the origin."""
    files = sorted(folder.glob("*.bin"))
    if not files:
        raise ArgumentError(f"{folder} holds no sweeps (*.bin).")
    for path in files:
        points = read_points(path)
        yield path.stem, points[(points[:, :3] != 0).any(axis=1)]


def unit_intensity(points: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """[P, 5] as the detector was trained on: x, y, z, intensity up to 255, time lag 0."""
    made = np.zeros((len(points), 5), np.float32)
    made[:, :4] = points[:, :4]
    brightest = float(made[:, 3].max(initial=0.0))
    if 0 < brightest <= 1:  # a reflectance, or a sensor with a scale of its own
        made[:, 3] *= _FULL / brightest
    return made
