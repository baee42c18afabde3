# SPDX-License-Identifier: Apache-2.0
"""Rows of one layer: the integers that its weights meet, and what the layer ought to give for them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from scn_fx.graph import Layer
from scn_fx.quant.integers import quantise
from scn_fx.quant.lockstep import PairedInput

__all__ = ["ROWS", "Outputs", "Samples", "column_sums", "gather", "outputs_of", "product", "target"]

ROWS = 1024
"""Rows that are worked on at once: sums of so many products of two int8 values are exact in float32."""


@dataclass(frozen=True)
class Outputs:
    """What one convolution ought to give, at some output sites.

    Attributes:
        sums: what the float network computes before the activation, float32 [rows, out].
        exact_offset, offset: see `quant.lockstep.PairedInput`.
        relu: whether a ReLU follows, behind the offset if there is one.
    """

    sums: torch.Tensor
    exact_offset: torch.Tensor | None
    offset: torch.Tensor | None
    relu: bool

    def exact_totals(self) -> torch.Tensor:
        """The float network's sums with its offset."""
        return self.sums if self.exact_offset is None else self.sums + self.exact_offset

    def signal(self) -> float:
        """Sum of the squares of the float network's activations."""
        return float(self._activated(self.exact_totals()).double().square().sum())

    def noise(self, sums: torch.Tensor) -> float:
        """Sum of the squared errors of the activations that quantised `sums` lead to."""
        got = sums if self.offset is None else sums + self.offset
        error = self._activated(got) - self._activated(self.exact_totals())
        return float(error.double().square().sum())

    def _activated(self, totals: torch.Tensor) -> torch.Tensor:
        return totals.clamp(min=0) if self.relu else totals


@dataclass(frozen=True)
class Samples(Outputs):
    """The same with the integers that the weights meet, int8 [rows, K * in]; zeros without a neighbour."""

    inputs: torch.Tensor

    def split(self, every: int) -> tuple[Samples, Samples]:
        """All rows but each `every`-th, and each `every`-th."""
        last = torch.arange(len(self.inputs), device=self.inputs.device) % every == every - 1
        return self._rows(~last), self._rows(last)

    def _rows(self, keep: torch.Tensor) -> Samples:
        parts = (self.sums, self.exact_offset, self.offset, self.inputs)
        sums, exact_offset, offset, inputs = (None if part is None else part[keep] for part in parts)
        assert sums is not None and inputs is not None
        return Samples(sums, exact_offset, offset, self.relu, inputs)


def gather(layer: Layer, frames: Sequence[PairedInput], limit: int) -> Samples:
    """At most `limit` output sites of all frames together, drawn at random, the same in every run."""
    counts = [len(frame.kernel_map) for frame in frames]
    share = min(1.0, limit / max(sum(counts), 1))
    amax = torch.tensor(layer.input_dynamic_range, device=layer.weight.device)
    inputs, chosen = [], []
    for number, (frame, count) in enumerate(zip(frames, counts, strict=True)):
        generator = torch.Generator().manual_seed(number)
        drawn = torch.randperm(count, generator=generator)[: math.ceil(count * share)].sort().values
        drawn = drawn.to(frame.kernel_map.device)
        integers = quantise(frame.features, amax).to(torch.int8)
        padded = torch.cat([integers, integers.new_zeros((1, integers.shape[1]))])
        kernel_map = frame.kernel_map[drawn].long()
        inputs.append(padded[kernel_map].reshape(len(drawn), -1))  # the entry -1 reads the last row: zeros
        chosen.append(outputs_of(layer, frame, drawn))

    def joined(parts: list[torch.Tensor | None]) -> torch.Tensor | None:
        return None if parts[0] is None else torch.cat([part for part in parts if part is not None])

    sums = torch.cat([each.sums for each in chosen])
    exact_offset = joined([each.exact_offset for each in chosen])
    offset = joined([each.offset for each in chosen])
    return Samples(sums, exact_offset, offset, chosen[0].relu, torch.cat(inputs))


def outputs_of(layer: Layer, frame: PairedInput, rows: torch.Tensor | slice = slice(None)) -> Outputs:
    """What the layer ought to give in one frame, at the output sites `rows`."""
    relu = layer.fused.rectifies or frame.offset is not None
    exact_offset = None if frame.exact_offset is None else frame.exact_offset[rows].float()
    offset = None if frame.offset is None else frame.offset[rows]
    return Outputs(frame.sums[rows], exact_offset, offset, relu)


def target(wanted: Outputs, present: torch.Tensor) -> torch.Tensor:
    """What the quantised sums should be, given what they are at `present`; float32 [rows, out].

    Without an activation it is the float network's sums; with an offset, which carries errors of its own,
    what makes the two totals equal. Behind a ReLU a total that should not be positive may be anything that is
    not: it should stay what it is if it is negative, and become zero otherwise. The squared distance to this
    target is never below that of the activations, and equals it wherever the present total is positive or the
    exact one is not, so that lowering the one lowers the other (majorisation; the auxiliary variables of
    Zhang et al. 2015, arXiv:1505.06798, serve the same end).
    """
    exact = wanted.exact_totals()
    if wanted.relu:
        total = present if wanted.offset is None else present + wanted.offset
        exact = torch.where(exact > 0, exact, total.clamp(max=0))
    return exact if wanted.offset is None else exact - wanted.offset


def product(inputs: torch.Tensor, values: torch.Tensor | None = None) -> torch.Tensor:
    """``X' values`` of integer inputs X [rows, n], or ``X' X`` without values; float64 [n, width].

    ``X' X`` is exact, so it is the same on every device.
    """
    width = inputs.shape[1] if values is None else values.shape[1]
    result = torch.zeros((inputs.shape[1], width), dtype=torch.float64, device=inputs.device)
    for start in range(0, len(inputs), ROWS):
        block = inputs[start : start + ROWS].float()
        result += block.t() @ (block if values is None else values[start : start + ROWS])
    return result


def column_sums(inputs: torch.Tensor) -> torch.Tensor:
    """Sums of the columns of integer inputs [rows, n], float64."""
    return inputs.sum(0, dtype=torch.int64).double()
