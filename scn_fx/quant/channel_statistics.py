# SPDX-License-Identifier: Apache-2.0
"""What equalisation has to know of each channel: its useful range and its energy, from sampled rows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.fx import Node

from scn_fx.quant.integers import quantise, scale_of
from scn_fx.quant.scale_groups import ScaleGroup

__all__ = ["ChannelStatistics"]

_ROWS = 16384  # of each frame
_KEPT = 65536  # of all frames
_CANDIDATES = 25
_OCTAVES = 6.0


class ChannelStatistics:
    """Collects rows of the values that the groups' layers make and read.

    `observe` is the observer of a `quant.interpreter.FloatInterpreter`. Rows stay on their device; what the
    methods find of them is a number for each channel, and comes to the CPU.
    """

    def __init__(self, groups: Sequence[ScaleGroup]):
        self._rows: dict[Node, list[torch.Tensor]] = {}
        for group in groups:
            for layer in (*group.consumers, *group.additions):
                self._rows.update({node: [] for node in layer.inputs})
            self._rows.update({layer.node: [] for layer in group.consumers})

    def observe(self, node: Node, value: torch.Tensor) -> None:
        """Keep rows of a value, evenly spaced."""
        kept = self._rows.get(node)
        if kept is not None and sum(map(len, kept)) < _KEPT:
            kept.append(value[:: max(1, -(-len(value) // _ROWS))].clone())

    def power(self, node: Node) -> float:
        """Mean over rows of the sum over channels of the squares."""
        return float(self._all(node).double().square().sum(1).mean())

    def energy(self, node: Node) -> torch.Tensor:
        """Mean square of each channel, float64 [channels]."""
        return self._all(node).double().square().mean(0).cpu()

    def density(self, node: Node) -> torch.Tensor:
        """Share of the values of each channel that are not zero, float64 [channels]."""
        return (self._all(node) != 0).double().mean(0).cpu()

    def ranges(self, node: Node, floor: float | None = None) -> torch.Tensor:
        """The range of least squared error of each channel alone, float64 [channels].

        With a `floor`, values below it count as equal to it: a ReLU behind an Add removes them.
        """
        values = self._all(node)
        if floor is not None:
            values = values.clamp(min=floor)
        largest = values.abs().amax(0).clamp(min=1e-30)
        best, found = torch.full_like(largest, torch.inf, dtype=torch.float64), largest.clone()
        for octaves in torch.linspace(-_OCTAVES, 0, _CANDIDATES).tolist():
            amax = largest * 2.0**octaves
            error = quantise(values.t(), amax) * scale_of(amax)[:, None] - values.t()
            total = error.double().square().sum(1)
            found = torch.where(total < best, amax, found)
            best = torch.minimum(best, total)
        return found.double().cpu()

    def largest(self, node: Node) -> float:
        """The largest value (not magnitude)."""
        return float(self._all(node).max())

    def _all(self, node: Node) -> torch.Tensor:
        return torch.cat(self._rows[node])
