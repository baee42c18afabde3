# SPDX-License-Identifier: Apache-2.0
"""From statistics to the ranges of every layer's inputs.

A value has one range, whoever reads it: an engine then stores it in one form. Only an operand of an Add
before a ReLU may have its own, because the ReLU removes part of what a convolution would read: and it has
one only where that lowers the error of the Add noticeably.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scn_fx.errors import CalibrationError
from scn_fx.quant.consumers import rectified_adds
from scn_fx.quant.histogram import MagnitudeHistogram
from scn_fx.quant.methods import range_of
from scn_fx.quant.pair_search import PairError
from scn_fx.quant.range_options import RangeOptions
from scn_fx.quant.ranges import checked_range, quantizable
from scn_fx.quant.statistics import Statistics

if TYPE_CHECKING:
    from torch.fx import GraphModule, Node

    from scn_fx.graph import Layer

__all__ = ["PAIR_RULES", "AddStatistics", "input_ranges", "value_keys", "value_ranges"]

# An operand that other layers read as well gets a range of its own if that removes so much of the Add's
# squared error: one form more costs the engine a pass over the value.
_WORTH_A_FORM = 0.2

Pair = tuple[float, float]
Given = tuple[float | None, float | None]


@dataclass(frozen=True)
class AddStatistics:
    """What a rule can know of an Add before a ReLU.

    Attributes:
        operands: histograms of the effective part of both operands, see `quant.consumers`.
        error: the squared error of the sum behind the ReLU for a pair of ranges.
    """

    operands: tuple[MagnitudeHistogram, MagnitudeHistogram]
    error: PairError


PairRule = Callable[[AddStatistics, RangeOptions, Given], Pair]


def separately(add: AddStatistics, options: RangeOptions, given: Given) -> Pair:
    """Each operand by the method, from the part of it that matters."""
    a, b = (
        range_of(histogram, options.method, options.percentile) if known is None else known
        for histogram, known in zip(add.operands, given, strict=True)
    )
    return a, b


def together(add: AddStatistics, options: RangeOptions, given: Given) -> Pair:
    """Both by the least squared error of the sum behind the ReLU."""
    largest = (add.operands[0].magnitude, add.operands[1].magnitude)
    start = separately(add, options, given)
    return add.error.best(start, largest, (given[0] is not None, given[1] is not None))


PAIR_RULES: Mapping[str, PairRule] = {
    "max": separately,
    "percentile": separately,
    "mse": together,
    "entropy": separately,
}
"""How each method chooses the ranges of an Add before a ReLU. `given` holds ranges that must stay."""


def value_keys(graph: GraphModule) -> dict[Node, str]:
    """A name for each value that a convolution or an Add reads: its first reader and operand position."""
    keys: dict[Node, str] = {}
    for layer in quantizable(graph):
        for position, node in enumerate(layer.inputs):
            keys.setdefault(node, f"{layer.name}:{position}")
    return keys


def value_ranges(graph: GraphModule, statistics: Statistics, options: RangeOptions) -> dict[Node, float]:
    """One range for each value, from all that it holds, as if every reader used all of it.

    Raises CalibrationError for a value that was zero in all frames, or whose range is none that serves.
    """
    readers = _readers(graph)
    return {
        node: _range(statistics.values[key], options, f"{' and '.join(readers[node])}, input")
        for node, key in value_keys(graph).items()
    }


def input_ranges(
    graph: GraphModule, statistics: Statistics, options: RangeOptions
) -> dict[str, tuple[float, ...]]:
    """The ranges of each layer's inputs by layer name, in operand order.

    With consumers="aware" the ranges of an Add before a ReLU cover what the ReLU leaves of its operands; with
    "ignore" every value has one range. Raises as `value_ranges`.
    """
    whole = value_ranges(graph, statistics, options)
    found = {layer.name: tuple(whole[node] for node in layer.inputs) for layer in quantizable(graph)}
    if options.consumers == "ignore":
        return found
    readers = _readers(graph)
    for layer in quantizable(graph):
        if layer.node in rectified_adds(graph):
            shared = tuple(len(readers[node]) > 1 for node in layer.inputs)
            found[layer.name] = _of_add(layer, statistics, options, found[layer.name], shared)
    return found


def _of_add(
    layer: Layer,
    statistics: Statistics,
    options: RangeOptions,
    whole: tuple[float, ...],
    shared: tuple[bool, ...],
) -> tuple[float, ...]:
    """The ranges of an Add before a ReLU; `whole` are those of its operands as others read them."""
    add = AddStatistics(statistics.operands[layer.name], PairError(statistics.pairs[layer.name]))
    # An operand of which nothing reaches the sum may have any range.
    idle = [part.magnitude == 0.0 for part in add.operands]
    rule = PAIR_RULES[options.method]

    def ranges(keep: Sequence[bool]) -> Pair:
        given = [value if kept or none else None for value, kept, none in zip(whole, keep, idle, strict=True)]
        a, b = rule(add, options, (given[0], given[1]))
        return checked_range(a, f"{layer.name}, input 0"), checked_range(b, f"{layer.name}, input 1")

    own = ranges((False, False))
    if not any(shared):
        return own
    common = ranges(shared)
    return own if add.error(own) < (1 - _WORTH_A_FORM) * add.error(common) else common


def _readers(graph: GraphModule) -> dict[Node, list[str]]:
    """The layers that read each value, by name, in order."""
    readers: dict[Node, list[str]] = {}
    for layer in quantizable(graph):
        for node in layer.inputs:
            readers.setdefault(node, []).append(layer.name)
    return readers


def _range(histogram: MagnitudeHistogram, options: RangeOptions, what: str) -> float:
    if histogram.magnitude == 0.0:
        raise CalibrationError(
            f"{what}: every value was zero in all frames, so there is no range to take (amax of zero). Check "
            "that the frames hold points in the grid and that the layer before is not dead."
        )
    amax = range_of(histogram, options.method, options.percentile)
    if options.method == "percentile" and amax <= histogram.width:
        raise CalibrationError(
            f"{what}: the {options.percentile} percentile lies in the first histogram bin (largest value "
            f"{histogram.magnitude:.6g}), which cannot be told from zero. Raise the percentile or num_bins, "
            "or use another method."
        )
    return checked_range(amax, what)
