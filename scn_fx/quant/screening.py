# SPDX-License-Identifier: Apache-2.0
"""What calibration frames are looked through for before they count: voxels and frames that stand alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from scn_fx.peers import Peers
from scn_fx.quant.frames import InputSpec, check_frame, round_features
from scn_fx.quant.outliers import GAP, find_outliers, peaks

__all__ = ["FrameScreen"]

# As many frames are read ahead: of three, the one that differs from the other two can be told.
_TOGETHER = 3

# If more than one frame in so many stands alone, the frames are a mixture, and none is an exception.
_EXCEPTION = 10


@dataclass(frozen=True, eq=False)
class _Frame:
    number: int
    tensors: list[torch.Tensor] | None
    """None for a frame of another process."""
    peaks: torch.Tensor


class FrameScreen:
    """Checks frames, and leaves out (or only notes) what one voxel or one frame alone brings.

    Voxels: see `quant.outliers`. Frames: a frame is held back while one of its columns is more than GAP times
    as large as in all other frames so far; if none brings values like it until the end, it is left out. All
    other frames keep their order. Of two frames nobody can tell which is right: both are used.

    With several processes the frames that are held until the end are judged by the frames of all.

    Attributes:
        findings: number of the frame, and a text, for everything that was found.
        read: numbers up to this have been read (of those that fall to this process).
        pending: numbers of frames that have been read, but neither counted nor left out: held back, ahead of
            their turn, or running. Whoever runs a frame takes its number out.
    """

    def __init__(self, spec: InputSpec, outliers: str, peers: Peers | None = None):
        self._spec = spec
        self._drop = outliers == "drop"
        self._peers = peers or Peers()
        self._known: torch.Tensor | None = None
        self._count = 0
        self.findings: list[tuple[int, str]] = []
        self.read = 0
        self.pending: list[int] = []

    def passed(self, frames: Iterable[tuple[int, Sequence[Any]]]) -> Iterator[tuple[int, list[torch.Tensor]]]:
        """Number and tensors of each frame that counts, its features rounded to float16 and widened again.

        `frames` gives the frames with their numbers, ascending.
        """
        held: list[_Frame] = []
        for number, raw in frames:
            if number not in self.pending:
                self.pending.append(number)
                self._count += 1
            self.read = max(self.read, number + 1)
            held.append(self._read(raw, number))
            if self._count >= _TOGETHER:
                yield from self._release(held)
        yield from self._last(held)

    def _last(self, held: list[_Frame]) -> Iterator[tuple[int, list[torch.Tensor]]]:
        """The frames that were held until the end, judged by all frames of all processes."""
        own = [(frame.number, frame.peaks) for frame in held]
        others: list[_Frame] = []
        count = number = 0
        for rank, (seen, largest, kept) in enumerate(self._peers.exchange((self._count, self._known, own))):
            count += seen
            number += len(kept)
            if rank != self._peers.rank:
                others += [_Frame(each, None, row) for each, row in kept]
                self._know(largest)
        few = count < _TOGETHER or number > max(1, count // _EXCEPTION)
        everything = [*held, *others]
        ordinary = self._ordinary(everything)
        for frame in held:
            used = few or not self._drop
            if frame not in ordinary:
                self._note_frame(frame, everything, used)
            if used or frame in ordinary:
                assert frame.tensors is not None
                yield frame.number, frame.tensors
            else:
                self.pending.remove(frame.number)

    def _know(self, largest: torch.Tensor | None) -> None:
        if largest is not None:
            self._known = largest if self._known is None else torch.maximum(self._known, largest)

    def state(self) -> dict[str, Any]:
        """What is known so far, as plain data; `restore` takes it back. Pending frames must be read again."""
        return {
            "read": self.read,
            "count": self._count,
            "pending": list(self.pending),
            "known": None if self._known is None else self._known.tolist(),
            # What was found in pending frames will be found again.
            "findings": [[number, text] for number, text in self.findings if number not in self.pending],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a `state`. Raises ValueError, KeyError or TypeError if it is damaged."""
        self.read, self._count = int(state["read"]), int(state["count"])
        self.pending = [int(number) for number in state["pending"]]
        known = state["known"]
        self._known = None if known is None else torch.tensor([float(value) for value in known])
        self.findings = [(int(number), str(text)) for number, text in state["findings"]]

    def _read(self, raw: Sequence[Any], number: int) -> _Frame:
        tensors = check_frame(raw, self._spec, number)
        features = tensors[self._spec.features].float()
        known = None if self._known is None else self._known.to(features.device)
        found = find_outliers(features, known)
        for each in found:
            rows = int(each.rows.sum())
            what = f"voxel {int(each.rows.nonzero()[0])}" if rows == 1 else f"{rows} voxels"
            text = (
                f"Frame {number}, column {each.column} of {self._name} (both counted from 0): {what} of "
                f"{len(features):,} ({rows / len(features):.2g} of all) of magnitude up to "
                f"{each.largest:.6g}, all others at most {each.rest:.6g}. "
                f"{_fate('voxel' if rows == 1 else 'group', not self._drop)}"
            )
            self.findings.append((number, text))
        if found and self._drop:
            keep = ~torch.stack([each.rows for each in found]).any(dim=0)
            for position in (self._spec.features, self._spec.indices):
                tensors[position] = tensors[position][keep]
            features = features[keep]
        return _Frame(number, round_features(tensors, self._spec, number), peaks(features).cpu())

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
            self._know(frame.peaks)
            assert frame.tensors is not None
            yield frame.number, frame.tensors

    def _note_frame(self, frame: _Frame, held: list[_Frame], used: bool) -> None:
        others = self._others(frame, self._ordinary(held))
        if others is None or frame.tensors is None:
            return
        features = frame.tensors[self._spec.features]
        for column in (frame.peaks > GAP * others).logical_and(others > 0).nonzero().flatten().tolist():
            share = float((features[:, column].abs() > others[column]).float().mean())
            text = (
                f"Frame {frame.number}, column {column} of {self._name} (both counted from 0): magnitudes up "
                f"to {float(frame.peaks[column]):.6g}, in all other frames at most "
                f"{float(others[column]):.6g}; {share:.2g} of its voxels lie beyond. {_fate('frame', used)}"
            )
            self.findings.append((frame.number, text))


def _fate(what: str, used: bool) -> str:
    return f"The {what} is used all the same." if used else f"The {what} is left out of the calibration."
