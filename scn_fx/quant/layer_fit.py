# SPDX-License-Identifier: Apache-2.0
"""One convolution's weights and bias fitted to what the float network computes, over the integers."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from scn_fx.graph import Layer
from scn_fx.quant.integer_search import Bounds, descend, round_successively
from scn_fx.quant.integers import LEVELS, float_levels, holds_every_integer, scale_of
from scn_fx.quant.layer_samples import ROWS, Samples, column_sums, product, target

__all__ = ["FitSettings", "LayerFit"]


@dataclass(frozen=True)
class FitSettings:
    """See `quant.round_weights`, whose options these are."""

    reach: int
    damping: float
    relu_passes: int
    sweeps: int
    bias: bool


class LayerFit:
    """Finds integers and bias of one layer for `samples`, in units of its integers.

    Attributes:
        ranges: of the output channels, float32 [out].
        nearest: the integers of rounding to nearest, float64 [K * in, out].
        bias: the present bias, float64 [out]; zeros if there is none.
        fine: output channels of which float16 can hold every integer, bool [out]; the others stay.
    """

    def __init__(self, layer: Layer, samples: Samples, settings: FitSettings):
        self._samples, self._settings = samples, settings
        self._levels, self.ranges = float_levels(layer, layer.weight.half())
        # What a product of two integers is worth in the layer's output, per channel.
        input_scale = scale_of(torch.tensor(layer.input_dynamic_range, device=self.ranges.device))
        self._unit = input_scale.double() * scale_of(self.ranges).double()
        self.nearest = self._levels.round().clamp(-LEVELS, LEVELS)
        self.fine = holds_every_integer(self.ranges)
        present = layer.bias
        self.bias = torch.zeros_like(self._unit) if present is None else present.half().double()
        self._bounds = self._limits()

    def _limits(self) -> Bounds:
        """Integers within `reach` of the float weight; the largest of each channel stays.

        So a later calibration finds the same weight range, and the same integers under it.
        """
        reach = self._settings.reach
        low = (self._levels - reach).ceil().clamp(-LEVELS, LEVELS)
        high = (self._levels + reach).floor().clamp(-LEVELS, LEVELS)
        fixed = torch.zeros_like(low, dtype=torch.bool)
        fixed.scatter_(0, self._levels.abs().argmax(0, keepdim=True), True)
        fixed |= ~self.fine
        return Bounds(torch.where(fixed, self.nearest, low), torch.where(fixed, self.nearest, high))

    def solve(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Integers, float64 [K * in, out], and the bias as float16 holds it, float64 [out].

        The damping draws the integers to the float weights, the more the less an input varies; so few rows
        cannot bend weights that they say nothing of.
        """
        inputs, settings = self._samples.inputs, self._settings
        gram, column = product(inputs), column_sums(inputs)
        rows = len(inputs)
        if settings.bias:  # the best bias for any integers makes the mean error zero: eliminate it
            gram -= torch.outer(column, column) / rows
        pull = settings.damping * float(gram.diagonal().mean()) or 1.0
        gram.diagonal().add_(pull)
        integers, bias = self.nearest, self.bias
        for number in range(1 + settings.relu_passes * self._samples.relu):
            wanted = self._wanted(integers, bias)
            linear = product(inputs, wanted) + pull * self._levels
            if settings.bias:
                linear -= torch.outer(column, wanted.double().mean(0))
            if number == 0:
                integers = round_successively(gram, linear, self._bounds)
            integers = descend(gram, linear, integers, self._bounds, settings.sweeps)
            if settings.bias:
                bias = (wanted.double().mean(0) - column @ integers / rows) * self._unit
                bias = bias.half().double()
        return integers, bias

    def _wanted(self, integers: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """Targets of the integer sums, float32 [rows, out]; they include a bias that is to be fitted."""
        wanted = target(self._samples, self.sums(self._samples, integers, bias))
        if not self._settings.bias:
            wanted = wanted - bias.float()
        return wanted / self._unit.float()

    def sums(self, samples: Samples, integers: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """What the layer computes before the activation, float32 [rows, out]."""
        whole = integers.float()
        parts = [block.float() @ whole for block in samples.inputs.split(ROWS)]
        return torch.cat(parts) * self._unit.float() + bias.float()
