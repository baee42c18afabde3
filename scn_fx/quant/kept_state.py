# SPDX-License-Identifier: Apache-2.0
"""Keeps a calibration that is under way in a file, and goes on from it.

While frames run, the state is written beside the cache: to `<cache>.part`, or `<cache>.rank<R>` where several
processes calibrate together. The cache itself is replaced when the calibration is complete; it holds the
state as well, so that more frames can be added later, or other methods tried.
"""

from __future__ import annotations

import json
import time
import warnings
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scn_fx.errors import CalibrationError, CalibrationWarning, WriteError
from scn_fx.files.atomic import check_writable, write_file
from scn_fx.graph import fingerprint
from scn_fx.peers import Peers
from scn_fx.quant.cache_file import check_graph, head, read_content
from scn_fx.quant.encoding import pack, unpack
from scn_fx.quant.provenance import check_grid, provenance

if TYPE_CHECKING:
    from torch.fx import GraphModule

    from scn_fx.quant.session import Session

__all__ = ["Keeper", "read_state"]

_SECONDS = 30.0


@dataclass
class Keeper:
    """Writes the state of a session to the file beside a cache.

    Attributes:
        cache: the cache that the calibration will write.
        peers: the processes that calibrate together.
    """

    cache: Path
    peers: Peers

    def __post_init__(self) -> None:
        check_writable(self.path)
        self._last = time.monotonic()

    @property
    def path(self) -> Path:
        """The file of this process."""
        suffix = ".part" if self.peers.size == 1 else f".rank{self.peers.rank}"
        return self.cache.with_name(self.cache.name + suffix)

    def after_frame(self, session: Session) -> None:
        """Write the state, if that was last done some time ago. A disk that fails is a warning only."""
        if time.monotonic() - self._last < _SECONDS:
            return
        self._last = time.monotonic()
        try:
            self.save(session)
        except WriteError as error:
            warnings.warn(f"The state so far cannot be kept: {error}", CalibrationWarning, stacklevel=2)

    def after_failure(self, session: Session) -> str:
        """Write the state of a session that ends early; returns what to say of it."""
        if session.counted == session.restored:
            return ""
        try:
            self.save(session)
        except WriteError as error:
            return f" The {session.counted} frames before it are lost: {error}"
        return (
            f" The {session.counted} frames that were counted before are kept in {self.path}; go on with "
            "resume=True (--resume)."
        )

    def save(self, session: Session) -> None:
        """Write the state. Raises WriteError."""
        content = {**head(session.graph), "state": packed_state(session)}
        write_file(self.path, json.dumps(content, allow_nan=False) + "\n")

    def discard(self) -> None:
        """Remove the file: the cache has everything now."""
        with suppress(OSError):
            self.path.unlink(missing_ok=True)

    def resume(self, session: Session) -> None:
        """Bring a session to where the file, or the finished cache, ends; at the start if there is neither.

        Raises CalibrationError for a file of another graph or other options, or a damaged one.
        """
        path = self.path
        if not path.exists():
            path = self.cache
            if self.peers.size > 1 or not path.exists():
                return
        session.restore(read_state(session.graph, path), path)


def packed_state(session: Session) -> dict[str, Any]:
    """A session's state as JSON data."""
    packed: dict[str, Any] = pack(session.state())
    return {"graph": fingerprint(session.graph), **packed}


def read_state(graph: GraphModule, path: Path) -> dict[str, Any]:
    """The state in a file, if it was made from this graph with its present weights, arrays unpacked.

    Raises CalibrationError.
    """
    content = read_content(path)
    check_graph(content, graph, path)
    check_grid(content, provenance(graph), str(path))
    state = content.get("state")
    if not isinstance(state, dict):
        raise CalibrationError(
            f"{path} holds ranges alone and no histograms (as caches of earlier versions, or saved by "
            "quant.save_cache): there is nothing to go on from. Calibrate anew."
        )
    if state.get("graph") != fingerprint(graph):
        raise CalibrationError(
            f"{path} holds histograms of other weights than the graph has now: they were taken before or "
            "after its weights were changed (rounding, equalisation, bias correction). Calibrate anew."
        )
    try:
        unpacked: dict[str, Any] = unpack(state)
    except ValueError as error:
        raise CalibrationError(f"{path} is damaged: {error}. Calibrate anew.") from error
    return unpacked
