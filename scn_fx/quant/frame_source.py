# SPDX-License-Identifier: Apache-2.0
"""The frames that a command line names: files, or code of the user's own."""

from __future__ import annotations

import os
from pathlib import Path

from scn_fx.lidar.given_frames import FrameSequence, FrameStream, given_frames, names_frames
from scn_fx.quant.frame_files import FrameFiles

__all__ = ["FrameSource", "find_frames"]

FrameSource = FrameFiles | FrameSequence | FrameStream


def find_frames(
    source: str | Path, *, point_format: str | None = None, limit: int | None = None
) -> FrameSource:
    """Frames of a file, folder or list (see `FrameFiles.find`), or of `package.module:callable`.

    Raises LidarError if there are none.
    """
    if names_frames(source):
        return given_frames(os.fspath(source), limit)
    return FrameFiles.find(source, point_format=point_format, limit=limit)
