# SPDX-License-Identifier: Apache-2.0
"""Ranges of weights by what their rounding does to a layer's output.

The range of an output channel need not be its largest magnitude. With ``range = largest * 127 / m`` the
largest weight becomes the whole number m, nothing is clipped, and each m rounds all other weights in another
way. The rows of inputs that a layer meets tell which m costs least: the squared error of its output is the
sum over rows of (row . (rounded weight - weight))^2, for each m a sum that frames add to. That is far from
the error of the weights themselves, because inputs behind a ReLU are positive and go together.

Counts are whole numbers (of 2^-32 of a frame's mean square output), so that sums depend on the frames alone,
not on their order or the processes that saw them; and each frame weighs the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from scn_fx.quant.integers import LEVELS as LARGEST
from scn_fx.quant.integers import quantise, scale_of

__all__ = ["LEVELS", "LevelErrors", "RoundedWeight", "ranges_at"]

LEVELS = tuple(range(LARGEST, 95, -1))
"""What a channel's largest weight may become; on two trained codecs no number below was ever the best."""

# Rows of each frame: so many that a layer takes about as long as any other, within these bounds.
_FEWEST, _MOST_ROWS = 64, 1024
_PRODUCTS = 1 << 24

_BLOCK = 1 << 24  # numbers that are made at a time
_UNIT = 2.0**32
_MOST = 2.0**40


def ranges_at(largest: torch.Tensor, level: torch.Tensor | int) -> torch.Tensor:
    """The float32 range with which the magnitude `largest` becomes the whole number `level`."""
    return (largest.double() * LARGEST / level).float()


class RoundedWeight:
    """What rounding takes from or adds to the weights of one convolution, at every level.

    Args:
        weight: as float16 holds it, in float32: [out, ...].
        keep: whether to hold the differences (len(LEVELS) times the weight) in memory between frames.
    """

    def __init__(self, weight: torch.Tensor, keep: bool = True) -> None:
        self._weight = weight.reshape(len(weight), -1)
        self._rows = min(max(_PRODUCTS // max(weight.numel(), 1), _FEWEST), _MOST_ROWS)
        self._kept = list(self._differences()) if keep else None

    def errors(self, features: torch.Tensor, kernel_map: torch.Tensor) -> npt.NDArray[np.int64]:
        """What one frame adds to `LevelErrors.sums`: input features [N, in], kernel map int32 [M, K]."""
        rows = kernel_map[:: max(1, -(-len(kernel_map) // self._rows))].long()
        met = features[rows.clamp(min=0)].float() * (rows >= 0)[..., None]  # -1: no neighbour, zeros
        inputs = met.reshape(len(rows), -1)
        signal = (inputs @ self._weight.t()).double().square().sum() / len(self._weight)
        parts = [(inputs @ block.t()).double().square().sum(0) for block in self._kept or self._differences()]
        shares = torch.cat(parts) / signal  # no signal, no errors: NaN
        counts = (shares.nan_to_num() * _UNIT).clamp(max=_MOST).round().long()
        found: npt.NDArray[np.int64] = counts.reshape(-1, len(LEVELS)).cpu().numpy()
        return found

    def _differences(self) -> Iterator[torch.Tensor]:
        """float32 [channels * levels, K * in], some channels at a time."""
        levels = torch.tensor(LEVELS, device=self._weight.device)
        for part in self._weight.split(max(1, _BLOCK // (len(LEVELS) * self._weight.shape[1]))):
            largest = part.abs().amax(1)
            ranges = ranges_at(torch.where(largest > 0, largest, 1.0)[:, None], levels).reshape(-1)
            weight = part.repeat_interleave(len(LEVELS), 0)
            yield quantise(weight, ranges).mul_(scale_of(ranges)[:, None]).sub_(weight)


class LevelErrors:
    """The error of each output channel at each level, over any number of frames.

    Attributes:
        sums: int64 [out, len(LEVELS)].
    """

    def __init__(self, channels: int) -> None:
        self.sums: npt.NDArray[np.int64] = np.zeros((channels, len(LEVELS)), np.int64)

    def merge(self, other: LevelErrors) -> None:
        """Add the sums of other frames; `other` stays as it is."""
        self.sums += other.sums

    def best(self) -> npt.NDArray[np.int64]:
        """int64 [out]: the level of the least error, of equal ones the largest."""
        return np.asarray(LEVELS)[self.sums.argmin(axis=1)]

    def state(self) -> dict[str, Any]:
        """All of it as numpy arrays; `from_state` takes them back."""
        return {"sums": self.sums}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> LevelErrors:
        """The sums of a `state`. Raises ValueError if they cannot be any."""
        sums = np.asarray(state["sums"])
        if (
            sums.ndim != 2
            or sums.shape[1] != len(LEVELS)
            or sums.dtype != np.int64
            or sums.min(initial=0) < 0
        ):
            raise ValueError("the errors of weights have another shape or type, or are negative")
        made = cls(len(sums))
        made.sums = sums.copy()
        return made
