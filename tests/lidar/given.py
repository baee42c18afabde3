# SPDX-License-Identifier: Apache-2.0
"""Frames as a user's module may give them, for `--frames package.module:callable`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from tests.quant.graphs import frame


def pairs() -> list[Any]:
    """A list of (features, indices)."""
    return [frame(seed) for seed in range(4)]


def generator() -> Iterator[Any]:
    """The same, one after the other."""
    yield from pairs()


class Recorded(torch.utils.data.Dataset[Any]):
    """A torch data set, which remembers what was read."""

    def __init__(self) -> None:
        self.read: list[int] = []

    def __len__(self) -> int:
        return 10

    def __getitem__(self, number: int) -> Any:
        self.read.append(number)
        return frame(number)


data_set = Recorded()


def loader() -> Any:
    """A DataLoader, which has a length and no index."""
    return torch.utils.data.DataLoader(Recorded(), batch_size=None)


def points() -> Iterator[Any]:
    """Points alone, as arrays and tensors."""
    yield np.array([[0.5, 1.5, 2.5, 9.0], [0.7, 1.6, 2.4, 11.0]], np.float32)
    yield torch.tensor([[3.5, 1.5, 0.5, 9.0]])


once = iter([frame(0), frame(1)])

NUMBER = 3
WRONG = [np.zeros(3)]
EMPTY: list[Any] = []


def broken() -> Iterator[Any]:
    """Fails at the second frame."""
    yield frame(0)
    raise KeyError("lidar_path")
