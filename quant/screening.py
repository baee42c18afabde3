# SPDX-License-Identifier: Apache-2.0
"""What calibration frames are looked through for before they count: voxels and frames that stand alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from quant.frames import InputSpec, check_frame, round_features
from quant.outliers import GAP, find_outliers, peaks

__all__ = ["FrameScreen"]

# As many frames are read ahead: of three, the one that differs from the other two can be told.
_TOGETHER = 3

# If more than one frame in so many stands alone, the frames are a mixture, and none is an exception.
_EXCEPTION = 10


@dataclass(frozen=True, eq=False)
class _Frame:
    number: int
    tensors: list[torch.Tensor]
    peaks: torch.Tensor


class FrameScreen:
    """Checks frames, and leaves out (or only notes) what one voxel or one frame alone brings.

    Voxels: see `quant.outliers`. Frames: a frame is held back while one of its columns is more than GAP times
    as large as in all other frames so far; if none brings values like it until the end, it is left out. All
    other frames keep their order. Of two frames nobody can tell which is right: both are used. `findings`
    has a text for everything that was found.
    """

    def __init__(self, spec: InputSpec, outliers: str):
        self._spec = spec
        self._drop = outliers == "drop"
        self._known: torch.Tensor | None = None
        self.findings: list[str] = []

    def passed(self, frames: Iterable[Sequence[Any]]) -> Iterator[tuple[int, list[torch.Tensor]]]:
        """Number and tensors of each frame that counts, its features rounded to float16 and widened again."""
        held: list[_Frame] = []
        count = 0
        for number, raw in enumerate(frames):
            count = number + 1
            held.append(self._read(raw, number))
            if count >= _TOGETHER:
                yield from self._release(held)
        few = count < _TOGETHER or len(held) > max(1, count // _EXCEPTION)
        ordinary = self._ordinary(held)
        for frame in held:
            used = few or not self._drop
            if frame not in ordinary:
                self._note_frame(frame, held, used)
            if used or frame in ordinary:
                yield frame.number, frame.tensors

    def _read(self, raw: Sequence[Any], number: int) -> _Frame:
        tensors = check_frame(raw, self._spec, number)
        features = tensors[self._spec.features].float()
        found = find_outliers(features, self._known)
        for each in found:
            rows = int(each.rows.sum())
            what = f"voxel {int(each.rows.nonzero()[0])}" if rows == 1 else f"{rows} voxels"
            self.findings.append(
                f"Frame {number}, column {each.column} of {self._name} (both counted from 0): {what} of "
                f"{len(features):,} ({rows / len(features):.2g} of all) of magnitude up to "
                f"{each.largest:.6g}, all others at most {each.rest:.6g}. "
                f"{_fate('voxel' if rows == 1 else 'group', not self._drop)}"
            )
        if found and self._drop:
            keep = ~torch.stack([each.rows for each in found]).any(dim=0)
            for position in (self._spec.features, self._spec.indices):
                tensors[position] = tensors[position][keep]
            features = features[keep]
        return _Frame(number, round_features(tensors, self._spec, number), peaks(features))

    @property
    def _name(self) -> str:
        return self._spec.names[self._spec.features]

    def _others(self, frame: _Frame, frames: Iterable[_Frame]) -> torch.Tensor | None:
        """Largest magnitude of each column in all other frames, [C]; None if there are none."""
        rest = [other.peaks for other in frames if other is not frame]
        rest += [] if self._known is None else [self._known]
        return torch.stack(rest).amax(dim=0) if rest else None

    def _far_columns(self, frame: _Frame, frames: Iterable[_Frame]) -> list[int]:
        others = self._others(frame, frames)
        if others is None:
            return []
        # A column that is zero elsewhere gives no measure (a time lag in a folder of single sweeps).
        far = (frame.peaks > GAP * others) & (others > 0)
        return far.nonzero().flatten().tolist()

    def _ordinary(self, frames: Iterable[_Frame]) -> list[_Frame]:
        """Those of `frames` that do not stand alone; the farthest goes first, for it would excuse others."""
        left = list(frames)
        while alone := [frame for frame in left if self._far_columns(frame, left)]:
            left = [frame for frame in left if frame not in alone]
        return left

    def _release(self, held: list[_Frame]) -> Iterator[tuple[int, list[torch.Tensor]]]:
        """Yield those that do not stand alone, and keep the others in `held`."""
        ordinary = self._ordinary(held)
        held[:] = [frame for frame in held if frame not in ordinary]
        for frame in ordinary:
            self._known = frame.peaks if self._known is None else torch.maximum(self._known, frame.peaks)
            yield frame.number, frame.tensors

    def _note_frame(self, frame: _Frame, held: list[_Frame], used: bool) -> None:
        others = self._others(frame, self._ordinary(held))
        if others is None:
            return
        features = frame.tensors[self._spec.features]
        for column in (frame.peaks > GAP * others).logical_and(others > 0).nonzero().flatten().tolist():
            share = float((features[:, column].abs() > others[column]).float().mean())
            self.findings.append(
                f"Frame {frame.number}, column {column} of {self._name} (both counted from 0): magnitudes up "
                f"to {float(frame.peaks[column]):.6g}, in all other frames at most "
                f"{float(others[column]):.6g}; {share:.2g} of its voxels lie beyond. {_fate('frame', used)}"
            )


def _fate(what: str, used: bool) -> str:
    return f"The {what} is used all the same." if used else f"The {what} is left out of the calibration."
