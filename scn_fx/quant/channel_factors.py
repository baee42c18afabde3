# SPDX-License-Identifier: Apache-2.0
"""The factors of a group of values that make the expected quantisation noise least.

Rounding to steps of size d adds noise of variance d^2 / 12. With a factor s_c, channel c of a value holds
x_c / s_c, so one range for all channels is R(s) = max_c r_c / s_c where r_c is the range that the channel
alone would need. Relative to the power P_k of its output, a convolution k that reads the value receives

- from the rounding of its input: R(s)^2 sum_c s_c^2 p_c A_kc, where A_kc is the energy of its weights for c,
  and p_c the share of values that are not zero: zeros are exact;
- from the rounding of its weights, whose range for output o is M_o(s) = max_c m_oc s_c:
  sum_o M_o(s)^2 sum_c e_c / s_c^2, where e_c is the mean square of channel c at all kernel offsets;
- from each Add before it in the group, which rounds its operands by ranges of their own:
  R_operand(s)^2 sum_c s_c^2 p_c A_kc.

All in units of 1 / (12 * 127^2). The sum is unchanged by a common factor and convex in log s (each term is a
maximum of sums of exponentials), so gradient descent finds its minimum. Nagel et al. 2019 (arXiv:1906.04721)
balance weight ranges per tensor; here weights have a range per output channel, and the activations' one range
is what matters, as in SmoothQuant (Xiao et al. 2023, arXiv:2211.10438), whose strength alpha this finds per
channel.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import torch
from torch.fx import Node

from scn_fx.graph import Layer, operator_spec
from scn_fx.operators.spec import Sites
from scn_fx.quant.channel_statistics import ChannelStatistics
from scn_fx.quant.scale_groups import ScaleGroup

__all__ = ["best_factors"]

_STEPS = 400
_LARGEST = 64.0  # factors stay within this of their mean, so that float16 keeps the scaled weights
_FAINT = 1e-4  # channels this small beside the largest have nothing to lose


@dataclass(frozen=True)
class _Term:
    """``max(ranges / s)^2 * sum(s^2 * weight)``: noise of one rounding of a value."""

    ranges: torch.Tensor
    weight: torch.Tensor

    def __call__(self, log_s: torch.Tensor) -> torch.Tensor:
        largest = (self.ranges.log() - log_s).amax()
        return (2 * largest).exp() * ((2 * log_s).exp() * self.weight).sum()


@dataclass(frozen=True)
class _WeightTerm:
    """``sum_o max(magnitudes[o] * s)^2 * sum(energy / s^2)``: noise of the rounding of weights."""

    magnitudes: torch.Tensor
    energy: torch.Tensor

    def __call__(self, log_s: torch.Tensor) -> torch.Tensor:
        largest = (self.magnitudes * log_s.exp()).amax(1).square().sum()
        return largest * (self.energy * (-2 * log_s).exp()).sum()


def best_factors(group: ScaleGroup, statistics: ChannelStatistics) -> tuple[torch.Tensor, float]:
    """Factors, float64 [channels] with geometric mean 1, and the expected fall of the noise in decibels.

    Some thousand steps with a number for each channel: on the CPU, wherever the graph is.
    """
    terms = _terms(group, statistics)

    def noise(log_s: torch.Tensor) -> torch.Tensor:
        return torch.stack([term(log_s) for term in terms]).sum()

    if not terms:  # nothing that reads the group gives anything but zeros
        return torch.ones(group.channels, dtype=torch.float64), 0.0
    ranges = torch.stack([term.ranges for term in terms if isinstance(term, _Term)]).amax(0)
    none = torch.zeros_like(ranges)
    candidates = [none, *(strength * _centred(ranges.log()) for strength in (0.25, 0.5, 0.75, 1.0))]
    best = min(candidates, key=lambda log_s: float(noise(log_s)))
    log_s, lowest = _descend(noise, best)
    return log_s.exp(), 10 * math.log10(float(noise(none)) / lowest)


def _descend(
    noise: Callable[[torch.Tensor], torch.Tensor], start: torch.Tensor
) -> tuple[torch.Tensor, float]:
    """The best point on the way of a gradient descent with falling steps, and its noise."""
    best, lowest = start, float(noise(start))
    point = start.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([point], lr=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _STEPS)
    for _ in range(_STEPS):
        optimizer.zero_grad()
        with torch.enable_grad():
            noise(point).log().backward()
        optimizer.step()
        schedule.step()
        now = _centred(point.detach())
        value = float(noise(now))
        if value < lowest:
            best, lowest = now, value
    return best, lowest


def _centred(log_s: torch.Tensor) -> torch.Tensor:
    limit = math.log(_LARGEST)
    return (log_s - log_s.mean()).clamp(-limit, limit)


def _terms(group: ScaleGroup, statistics: ChannelStatistics) -> list[_Term | _WeightTerm]:
    terms: list[_Term | _WeightTerm] = []
    for layer in group.consumers:
        ranges, energy = _floored(statistics, layer.inputs[0])
        share, power = _weight_energy(layer), statistics.power(layer.node)
        if power == 0:
            continue
        terms.append(_Term(ranges, statistics.density(layer.inputs[0]) * share / power))
        magnitudes = layer.weight.double().abs().amax(dim=(1, 2, 3)).cpu()
        terms.append(_WeightTerm(magnitudes, prod(layer.weight.shape[1:4]) * energy / power))
    for addition in group.additions:
        readers = [layer for layer in group.consumers if _follows(layer.inputs[0], addition.node)]
        powers = {layer: statistics.power(layer.node) for layer in readers}
        shares = [_weight_energy(layer) / power for layer, power in powers.items() if power]
        if not shares:
            continue
        relu = addition.fused.rectifies
        for position, node in enumerate(addition.inputs):
            floor = -statistics.largest(addition.inputs[1 - position]) if relu else None
            ranges, _ = _floored(statistics, node, floor)
            terms.append(_Term(ranges, statistics.density(node) * torch.stack(shares).sum(0)))
    return terms


def _floored(
    statistics: ChannelStatistics, node: Node, floor: float | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ranges and energies of a value's channels; dead channels get a little of the largest."""
    ranges, energy = statistics.ranges(node, floor), statistics.energy(node)
    ranges = ranges.clamp(min=_FAINT * float(ranges.max()))
    return ranges, energy.clamp(min=_FAINT**2 * float(energy.max()))


def _weight_energy(layer: Layer) -> torch.Tensor:
    return layer.weight.double().square().sum(dim=(0, 1, 2, 3)).cpu()


def _follows(node: Node, earlier: Node) -> bool:
    """Whether `node` is `earlier` or made of it by Adds and Relus of the same group."""
    seen, waiting = set(), [node]
    while waiting:
        at = waiting.pop()
        if at is earlier:
            return True
        spec = operator_spec(at)
        if at not in seen and spec is not None and spec.sites is Sites.SAME:
            seen.add(at)
            waiting += at.all_input_nodes
    return False
