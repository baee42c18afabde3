# SPDX-License-Identifier: Apache-2.0
"""One calibration while it runs: which frames are through, and how to go on from there."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from operator import length_hint
from pathlib import Path
from typing import Any

import torch
from torch.fx import GraphModule, Node

from scn_fx.errors import CalibrationError, ScnError
from scn_fx.peers import Peers
from scn_fx.quant.frames import input_spec, readable
from scn_fx.quant.interpreter import FloatInterpreter
from scn_fx.quant.interrupts import uninterrupted
from scn_fx.quant.progress import progress_bar
from scn_fx.quant.recorder import Recorder
from scn_fx.quant.screening import FrameScreen
from scn_fx.quant.similarity import FrameVariety
from scn_fx.quant.statistics import Statistics

__all__ = ["Session"]

_SHOWN = 10

# Share of a frame's time that reading and looking through it takes, for the progress bar.
_READING = 0.1


class Session:
    """Runs frames past a recorder.

    Attributes:
        graph: the captured graph.
        recorder: what collects statistics.
        peers: the processes that calibrate together.
        restored: how many frames the state that it went on from had counted.
    """

    def __init__(
        self,
        graph: GraphModule,
        recorder: Recorder,
        outliers: str,
        peers: Peers | None = None,
        shard: bool = False,
    ) -> None:
        self.graph = graph
        self.recorder = recorder
        self.peers = peers or Peers()
        self._shard = shard and self.peers.size > 1
        self._spec = input_spec(graph)
        self._screen = FrameScreen(self._spec, outliers, self.peers)
        self._variety = FrameVariety()
        self._options = {
            "num_bins": recorder.num_bins,
            "outliers": outliers,
            "rank": self.peers.rank,
            "ranks": self.peers.size,
            "shard": self._shard,
        }
        # Numbers and digests of the first and the last frame that was counted, and of those on their way.
        self._digests: dict[int, str] = {}
        self._fresh: dict[int, str | None] = {}
        self._resumed: Path | None = None
        self._skipped = 0
        self.restored = 0

    @classmethod
    def from_state(cls, graph: GraphModule, state: dict[str, Any], path: Path) -> Session:
        """The session whose state the file `path` holds. Raises CalibrationError if it is damaged."""
        try:
            options = state["options"]
            recorder = Recorder(graph, "mse", int(options["num_bins"]))
            made = cls(graph, recorder, str(options["outliers"]))
            made._options = dict(options)
        except (ValueError, KeyError, TypeError) as error:
            raise CalibrationError(f"{path} is damaged: {error}. Calibrate anew.") from error
        made.restore(state, path)
        return made

    @property
    def counted(self) -> int:
        """Number of frames that have been counted."""
        return self._variety.frames

    def state(self) -> dict[str, Any]:
        """What `restore` needs to go on, as plain data and numpy arrays."""
        return {
            "options": self._options,
            "counted": self.counted,
            "digests": {str(number): digest for number, digest in self._digests.items()},
            "screen": self._screen.state(),
            "variety": self._variety.state(),
            "statistics": self.recorder.statistics.state(),
        }

    def restore(self, state: dict[str, Any], path: Path) -> None:
        """Go on from the state in the file `path`.

        Raises CalibrationError if it was made with other options or does not hold this graph's values.
        """
        if state.get("options") != self._options:
            raise CalibrationError(
                f"{path} was made with {_listed(state.get('options'))}; this calibration has "
                f"{_listed(self._options)}. Resume with the same, or calibrate anew."
            )
        try:
            statistics = Statistics.from_state(state["statistics"])
            variety = FrameVariety.from_state(state["variety"])
            digests = {int(number): str(digest) for number, digest in state["digests"].items()}
            self._screen.restore(state["screen"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CalibrationError(f"{path} is damaged: {error}. Calibrate anew.") from error
        if not self.recorder.fits(statistics):
            raise CalibrationError(f"{path} holds other values than this graph's. Calibrate anew.")
        self.recorder.statistics, self._variety, self._digests = statistics, variety, digests
        self._resumed, self.restored = path, self.counted
        self._skipped = self._screen.read

    def run(self, frames: Iterable[Sequence[Any]], progress: bool | None, kept: Any = None) -> None:
        """Count all frames that are left; `kept` is a `quant.kept_state.Keeper`, or None.

        Raises the errors of frames and layers, with the frame named.
        """
        nodes = [node for node in self.graph.graph.nodes if node.op == "call_function"]
        step = (1 - _READING) / max(len(nodes), 1)
        device = _device(self.graph)
        total = self._total(frames)
        shown = progress if self.peers.rank == 0 else False
        with progress_bar(shown, total, done=self.counted) as bar, torch.no_grad():

            def passed(node: Node) -> None:
                if node.op == "call_function":
                    bar.advance(step)

            interpreter = FloatInterpreter(
                self.graph,
                self.recorder.observe,
                observe_add=self.recorder.observe_add,
                observe_convolution=self.recorder.observe_convolution,
                passed=passed,
            )
            numbered = self._numbered(frames, lambda: bar.advance(_READING))
            for number, tensors in self._screen.passed(numbered):
                self.recorder.start_frame()
                try:
                    interpreter.run(*(tensor.to(device) for tensor in tensors))
                except ScnError as error:
                    raise type(error)(f"Frame {number} (counted from 0): {error}") from error
                with uninterrupted():
                    self.recorder.finish_frame(number)
                    self._variety.add(tensors[self._spec.indices])
                    self._screen.pending.remove(number)
                    self._note(number)
                bar.finish_frame(self.counted)
                if kept is not None:
                    kept.after_frame(self)

    def gather(self) -> list[str]:
        """Take in what all processes have counted; returns what there is to warn of.

        Every process then has the same statistics. Raises CalibrationError if there were no frames.
        """
        mine = (self.recorder.statistics, self._variety, self._screen.findings)
        everything = self.peers.exchange(mine)
        notes: list[tuple[int, str]] = []
        if self.peers.size > 1:
            self.recorder.statistics, self._variety = self.recorder.empty(), FrameVariety()
            for statistics, variety, findings in everything:
                self.recorder.statistics.merge(statistics)
                self._variety.merge(variety)
                notes += findings
        else:
            notes = self._screen.findings
        if self.counted == 0:
            raise CalibrationError(
                "There are no frames. Calibration needs at least one; a few hundred from different places "
                "are usual."
            )
        alike = self._variety.finding()
        texts = [text for _, text in sorted(notes, key=lambda note: note[0])]
        return [*_first(texts), *self.recorder.lonely(self.counted), *([alike] if alike else [])]

    def _total(self, frames: Iterable[Sequence[Any]]) -> int | None:
        total = length_hint(frames)  # 0 where nothing says how many there are
        if self._shard:
            total = len(range(self.peers.rank, total, self.peers.size))
        return total or None

    def _numbered(self, frames: Iterable[Sequence[Any]], read: Any) -> Iterator[tuple[int, Sequence[Any]]]:
        """This process's frames that are not yet through, with their numbers."""
        last = -1
        probes = dict(self._digests) if self._resumed else {}
        for number, raw in self._chosen(frames, set(probes)):
            last = number
            if number in probes:
                self._check_same(number, raw, probes[number])
            if number >= self._skipped or number in self._screen.pending:
                self._fresh[number] = _digest(raw)
                read()
                yield number, raw
        last = len(frames) - 1 if isinstance(frames, Sized) else last
        missing = [number for number in probes if number > last]
        if missing:
            raise CalibrationError(
                f"{self._resumed} has counted frame {max(missing)} (counted from 0), but the frames end at "
                f"{last}. Give the same frames in the same order (more may follow), or calibrate anew."
            )

    def _chosen(
        self, frames: Iterable[Sequence[Any]], probes: set[int]
    ) -> Iterator[tuple[int, Sequence[Any]]]:
        """The frames that are wanted; of an indexable sequence the others are not even read."""

        def wanted(number: int) -> bool:
            if self._shard and number % self.peers.size != self.peers.rank:
                return False
            return number >= self._skipped or number in self._screen.pending or number in probes

        indexable: Any = frames
        if hasattr(frames, "__getitem__") and isinstance(frames, Sized) and not isinstance(frames, Mapping):
            skipping = self._shard or self._skipped > 0
        else:
            skipping = False
        if skipping:
            for number in filter(wanted, range(len(indexable))):
                yield number, indexable[number]
            return
        for number, raw in enumerate(frames):
            if wanted(number):
                yield number, raw

    def _note(self, number: int) -> None:
        digest = self._fresh.pop(number, None)
        if digest is not None and number >= max(self._digests, default=-1):
            first = min(self._digests, default=number)
            self._digests = {first: self._digests.get(first, digest), number: digest}

    def _check_same(self, number: int, raw: Sequence[Any], digest: str) -> None:
        if _digest(raw) != digest:
            raise CalibrationError(
                f"Frame {number} (counted from 0) is not the one that {self._resumed} has counted under this "
                "number. Give the same frames in the same order (more may follow), or calibrate anew."
            )


def _digest(raw: Sequence[Any]) -> str | None:
    """A digest of a frame's numbers; None for what is no frame (the screen says why)."""
    made = hashlib.sha256()
    try:
        for value in tuple(raw):
            array = torch.as_tensor(readable(value)).detach().cpu().contiguous().numpy()
            made.update(f"{array.dtype} {array.shape} ".encode())
            made.update(array.tobytes())
    except (TypeError, ValueError, RuntimeError):
        return None
    return made.hexdigest()


def _device(graph: GraphModule) -> torch.device:
    for tensor in (*graph.parameters(), *graph.buffers()):
        return tensor.device
    return torch.device("cpu")


def _listed(options: Any) -> str:
    if not isinstance(options, Mapping):
        return "unknown options"
    return ", ".join(f"{key}={value!r}" for key, value in options.items())


def _first(findings: list[str]) -> list[str]:
    """The first findings, and how many more there are: a damaged sensor may give one for every frame."""
    more = len(findings) - _SHOWN
    return findings if more <= 0 else [*findings[:_SHOWN], f"There are {more} more findings of this kind."]
