# SPDX-License-Identifier: Apache-2.0
"""Int8 ranges of a file beside the values that they are for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from scn_fx.operators.table import OPERATORS
from scn_fx.quant.histogram import MagnitudeHistogram

__all__ = ["RangeUse", "range_uses"]

_LEVELS = 127
"""int8 holds amax as 127 (docs/explanation/numerics.md)."""

_INPUT_RANGES = tuple(
    dict.fromkeys(each.attribute for spec in OPERATORS.values() for each in spec.input_ranges)
)


@dataclass
class RangeUse:
    """The range of one operand of a node, and what its values in float32 are."""

    operand: int
    source: str
    """The node, or the input of the network, that makes the values."""
    amax: float
    histogram: MagnitudeHistogram = field(default_factory=MagnitudeHistogram, repr=False)
    beyond: int = 0
    """Values of a magnitude larger than the range: int8 clips them."""
    vanished: int = 0
    """Values that are not zero, and that int8 rounds to zero."""

    def collect(self, values: npt.NDArray[Any]) -> None:
        """Count the values of one frame, of any shape."""
        magnitudes = np.abs(values.astype(np.float32, copy=False))
        self.histogram.collect_array(values)
        self.beyond += int(np.count_nonzero(magnitudes > self.amax))
        half_step = np.float32(self.amax / (2 * _LEVELS))  # rounds to even: half a step is zero
        self.vanished += int(np.count_nonzero((magnitudes > 0) & (magnitudes <= half_step)))

    @property
    def beyond_share(self) -> float:
        """Share of the values that are not zero, 0 to 1."""
        return self.beyond / self.histogram.nonzero if self.histogram.nonzero else 0.0

    @property
    def vanished_share(self) -> float:
        """Share of the values that are not zero, 0 to 1."""
        return self.vanished / self.histogram.nonzero if self.histogram.nonzero else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        seen = self.histogram
        return {
            "operand": self.operand,
            "source": self.source,
            "amax": self.amax,
            "smallest": seen.smallest,
            "largest": seen.largest,
            "values": seen.nonzero + seen.zeros,
            "zeros": seen.zeros,
            "beyond_share": self.beyond_share,
            "rounded_to_zero_share": self.vanished_share,
        }


def range_uses(model: dict[str, Any], names: list[str]) -> dict[str, list[RangeUse]]:
    """The ranges of each node that has some, by name; `model` is what `read_model` returns.

    Ranges are those of the operands in their order, which initializers do not belong to.
    """
    made = {out: name for name, node in zip(names, model["nodes"], strict=True) for out in node["outputs"]}
    found: dict[str, list[RangeUse]] = {}
    for name, node in zip(names, model["nodes"], strict=True):
        operands = [value for value in node["inputs"] if value and value not in model["initializers"]]
        ranges: list[float] = []
        for attribute in _INPUT_RANGES:
            value = node["attributes"].get(attribute)
            ranges += [] if value is None else value if isinstance(value, list) else [value]
        uses = [
            RangeUse(number, made.get(operand, operand), float(amax))
            for number, (operand, amax) in enumerate(zip(operands, ranges, strict=False))
        ]
        if uses:
            found[name] = uses
    return found
