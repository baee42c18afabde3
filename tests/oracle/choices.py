# SPDX-License-Identifier: Apache-2.0
"""Where random problems and networks get their choices: one generator serves hypothesis and plain seeds.

Hypothesis shrinks what it chose; a seed stands in a parametrised test, or in a benchmark.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

import numpy as np
from hypothesis import strategies as st

__all__ = ["Choices", "Drawn", "Seeded", "triple"]

T = TypeVar("T")


class Choices(Protocol):
    """One choice after another."""

    def integer(self, low: int, high: int) -> int:
        """A whole number of [low, high]."""

    def pick(self, options: Sequence[T]) -> T:
        """One of them."""


class Drawn:
    """Hypothesis chooses."""

    def __init__(self, draw: st.DrawFn) -> None:
        self._draw = draw

    def integer(self, low: int, high: int) -> int:
        return self._draw(st.integers(low, high))

    def pick(self, options: Sequence[T]) -> T:
        return self._draw(st.sampled_from(options))


class Seeded:
    """A seed chooses: the same seed, the same choices."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def integer(self, low: int, high: int) -> int:
        return int(self._rng.integers(low, high + 1))

    def pick(self, options: Sequence[T]) -> T:
        return options[self.integer(0, len(options) - 1)]


def triple(choices: Choices, low: int, high: int) -> tuple[int, int, int]:
    """Three numbers of [low, high]."""
    return choices.integer(low, high), choices.integer(low, high), choices.integer(low, high)
