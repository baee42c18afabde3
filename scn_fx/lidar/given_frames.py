# SPDX-License-Identifier: Apache-2.0
"""Frames that code of the user gives: a function, named as `package.module:callable`, or what it names."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np

from scn_fx.errors import LidarError
from scn_fx.importing import import_object, is_import_path
from scn_fx.lidar.grids import VoxelGrid
from scn_fx.lidar.sites import NetworkGrid
from scn_fx.lidar.voxels import voxelize

__all__ = ["FrameSequence", "FrameStream", "given_frames", "names_frames"]

_WANTED = (
    "an iterable of frames: pairs (features, indices), what scn_fx.lidar.voxelize returns, or points [N, C]"
)


@dataclass(frozen=True)
class _Given:
    """What both kinds share: whose frames they are, and the grid that points among them are put into."""

    source: str
    network: NetworkGrid = field(default_factory=lambda: NetworkGrid("the network"))
    grid: VoxelGrid | None = None

    def for_network(self, network: NetworkGrid, grid: VoxelGrid | None) -> Any:
        """The same frames for a network: points are voxelised in its grid, or in `grid` where it has none.

        Raises GridError if `grid` contradicts the network's.
        """
        if grid is not None:
            grid = network.require(grid, "--grid (grid=)")
        return replace(self, network=network, grid=grid)

    def frame(self, raw: Any, number: int) -> Any:
        """A frame as it was given; of points their voxels."""
        ndim = getattr(raw, "ndim", None)
        if ndim is None:
            return raw
        shape = tuple(raw.shape)
        if ndim != 2 or shape[1] < 3:
            raise LidarError(
                f"{self.source}, frame {number} (counted from 0): expected (features, indices), or points "
                f"[N, >= 3], got an array {list(shape)}."
            )
        grid = self.network.require(self.grid, "--grid (grid=)")
        try:
            points = raw.detach().cpu().numpy() if hasattr(raw, "detach") else raw
            voxels = voxelize(points, grid)
        except LidarError as error:
            raise LidarError(f"{self.source}, frame {number} (counted from 0): {error}") from error
        return voxels.features, self.network.columns(voxels.indices)


@dataclass(frozen=True)
class FrameSequence(_Given):
    """Frames with numbers, such as those of a data set: each is read when it is asked for."""

    items: Any = ()
    numbers: Sequence[int] = ()
    """Which of the items are taken."""

    def spread(self, limit: int) -> FrameSequence:
        """At most `limit` of the frames, spread evenly over them."""
        if limit >= len(self.numbers):
            return self
        chosen = np.linspace(0, len(self.numbers) - 1, limit).round().astype(int)
        return replace(self, numbers=[self.numbers[i] for i in chosen])

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, position: int) -> Any:
        number = self.numbers[position]
        return self.frame(self.items[number], number)

    def __iter__(self) -> Iterator[Any]:
        return (self[position] for position in range(len(self)))


@dataclass(frozen=True)
class FrameStream(_Given):
    """Frames that come one after the other; every pass asks for them anew."""

    make: Callable[[], Iterable[Any]] = tuple
    most: int | None = None
    known: int | None = None
    """How many there are, where something says it."""

    def spread(self, limit: int) -> FrameStream:
        """The first `limit` frames: how many there are is not known before they are through."""
        return replace(self, most=limit if self.most is None else min(limit, self.most))

    def __length_hint__(self) -> int:
        if self.known is None:
            return 0
        return self.known if self.most is None else min(self.most, self.known)

    def __iter__(self) -> Iterator[Any]:
        return (self.frame(raw, number) for number, raw in enumerate(islice(self.make(), self.most)))


def names_frames(text: str | os.PathLike[str]) -> bool:
    """Whether `text` names code that gives frames, and no file."""
    name = os.fspath(text)
    return is_import_path(name) and not os.path.exists(name)


def given_frames(path: str, limit: int | None = None) -> FrameSequence | FrameStream:
    """The frames of `package.module:name`: an iterable, or a callable without arguments that returns one.

    A frame is (features, indices), `Voxels`, a `Frame`, or points [N, C] alone, which are voxelised in the
    network's grid. `limit` spreads its choice evenly over what has a length and an index, such as a list or a
    torch Dataset; of other iterables it takes the first. A generator's function is called once for each pass.

    Raises LidarError for what cannot be imported, or gives no iterable. Errors of the user's code stay as
    they are.
    """
    value = import_object(path, "The source of frames", LidarError)
    if limit is not None and limit < 1:
        raise LidarError(f"The number of frames must be at least 1, got {limit}.")
    items = value() if callable(value) else value
    length = _length(items)
    found: FrameSequence | FrameStream
    if length is not None and hasattr(items, "__getitem__") and not hasattr(items, "keys"):
        found = FrameSequence(path, items=items, numbers=range(length))
    elif isinstance(items, Iterable) and not isinstance(items, str | bytes):
        found = FrameStream(path, make=_passes(path, value, items), known=length)
    else:
        raise LidarError(f"{path}: expected {_WANTED}, got {type(items).__name__}.")
    return found if limit is None else found.spread(limit)


def _length(items: Any) -> int | None:
    try:
        return len(items)
    except (TypeError, NotImplementedError):  # a DataLoader of a stream has the method, but no length
        return None


def _passes(path: str, value: Any, first: Any) -> Callable[[], Iterable[Any]]:
    """A function that gives all frames at each call; `first` is what the first pass takes."""
    waiting = [first]

    def make() -> Iterable[Any]:
        if waiting:
            return waiting.pop()
        if isinstance(value, Iterator):
            raise LidarError(
                f"{path} is an iterator, which gives its frames once, but they are read several times here. "
                "Name the function that makes it, or a list."
            )
        again: Iterable[Any] = value() if callable(value) else value
        return again

    return make
