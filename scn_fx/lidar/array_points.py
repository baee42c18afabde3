# SPDX-License-Identifier: Apache-2.0
"""Points in `.npy` and `.npz` files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from scn_fx.errors import LidarError
from scn_fx.files.arrays import open_npz, read_npy

__all__ = ["read_array_points"]


def read_array_points(path: str | Path) -> npt.NDArray[Any]:
    """The points [N, >= 3] of a `.npy` file, or of an `.npz`: its array `points`, or its only one.

    float16 and float32 stay as they are; float64 and whole numbers become float32. Raises LidarError for a
    damaged file, and for arrays that are no points.
    """
    if Path(path).suffix == ".npz":
        with open_npz(path, LidarError) as file:
            names = file.names
            name = "points" if "points" in names else names[0] if len(names) == 1 else None
            if name is None:
                raise LidarError(
                    f"{path}: expected the points as its array 'points', or as its only one, got "
                    f"{', '.join(n[:60] for n in names[:20]) or 'nothing'}. Write them with "
                    "numpy.savez('NAME.npz', points=points)."
                )
            points = file[name]
    else:
        points = read_npy(path, LidarError)
    if points.ndim != 2 or points.shape[1] < 3 or points.dtype.kind not in "fiu":
        raise LidarError(
            f"{path}: expected points as float32 [N, >= 3] (x, y, z in metres, then what the network takes), "
            f"got {points.dtype.name} {list(points.shape)}. Write it again with one row for each point."
        )
    small = points.dtype.kind == "f" and points.dtype.itemsize <= 4
    return points.astype(points.dtype.newbyteorder("=") if small else np.float32, copy=False)
