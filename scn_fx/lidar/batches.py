# SPDX-License-Identifier: Apache-2.0
"""Several frames in one batch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from scn_fx.errors import LidarError
from scn_fx.lidar.sites import SiteIndices, grid_of

__all__ = ["collate"]


def collate(
    frames: Iterable[Iterable[npt.NDArray[Any]]],
) -> tuple[npt.NDArray[Any], npt.NDArray[np.int32]]:
    """Join frames, each (features [N, C], indices [N, 4]), into one batch; frame i gets batch index i.

    Takes `Voxels`, `Frame`s or plain pairs. Returns (features [ΣN, C], int32 indices [ΣN, 4]). A frame may
    have zero voxels, so the batch size is the number of frames, not the largest index plus one. Raises
    `LidarError` when there are no frames, a frame already holds several batch indices, or widths, dtypes or
    grids differ.
    """
    pairs, grids = [], []
    for i, frame in enumerate(frames):
        features, indices = frame
        if features.ndim != 2 or indices.shape != (len(features), 4):
            raise LidarError(
                f"Frame {i}: expected features [N, C] and indices [N, 4], got {list(features.shape)} and "
                f"{list(indices.shape)}. Voxelise each frame on its own first."
            )
        if len(indices) and (indices[:, 0] != indices[0, 0]).any():
            raise LidarError(
                f"Frame {i}: expected one batch index, got {len(np.unique(indices[:, 0]))}. It is a batch "
                "already: pass its frames one by one."
            )
        pairs.append((features, indices))
        grids.append(grid_of(frame) or grid_of(indices))
    if not pairs:
        raise LidarError("Expected at least one frame to collate, got none.")
    kinds = {(features.shape[1], features.dtype.name) for features, _ in pairs}
    if len(kinds) > 1:
        found = ", ".join(f"{width} x {name}" for width, name in sorted(kinds))
        raise LidarError(
            f"Expected frames of one width and dtype, got {found}. Read them with the same columns."
        )
    known = [grid for grid in grids if grid is not None]
    for grid in known[1:]:
        if not grid.same_voxels(known[0]):
            raise LidarError(
                f"Expected frames of one grid, got {known[0]}, and {grid}. Voxelise all of them in one grid."
            )
    joined = np.concatenate([np.asarray(indices) for _, indices in pairs]).astype(np.int32)
    joined[:, 0] = np.repeat(np.arange(len(pairs), dtype=np.int32), [len(indices) for _, indices in pairs])
    if len(known) == len(pairs):
        joined = SiteIndices.of(joined, known[0])
    return np.concatenate([features for features, _ in pairs]), joined
