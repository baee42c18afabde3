# SPDX-License-Identifier: Apache-2.0
"""How ranges are taken from what frames have shown: the options that travel together."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real

from scn_fx.errors import CalibrationError
from scn_fx.quant import CONSUMERS, METHODS, WEIGHTS

__all__ = ["RangeOptions"]


@dataclass(frozen=True)
class RangeOptions:
    """The options of `quant.calibrate` of the same names."""

    method: str = "mse"
    percentile: float = 99.99
    consumers: str = "aware"
    weights: str | None = None

    def check(self) -> RangeOptions:
        """The options themselves; CalibrationError for what does not exist."""
        if self.method not in METHODS:
            raise CalibrationError(
                f"Unknown calibration method {self.method!r}; expected one of {', '.join(METHODS)}."
            )
        if not isinstance(self.percentile, Real) or not 0 < self.percentile <= 100:
            raise CalibrationError(f"percentile must be a number in (0, 100], got {self.percentile!r}.")
        if self.percentile <= 1:
            raise CalibrationError(
                f"percentile counts in percent, so {self.percentile:g} would clip nearly everything. Did you "
                f"mean {100 * self.percentile:.10g}?"
            )
        if self.consumers not in CONSUMERS:
            raise CalibrationError(
                f"Unknown consumers={self.consumers!r}; expected one of {', '.join(CONSUMERS)}."
            )
        if self.weights is not None and self.weights not in WEIGHTS:
            raise CalibrationError(
                f"Unknown weights={self.weights!r}; expected one of {', '.join(WEIGHTS)}, or None (the "
                "method's own)."
            )
        return self

    @property
    def weights_by_output(self) -> bool:
        """Whether weights get the ranges that cost least at the output."""
        return (self.weights or ("max" if self.method == "max" else "output")) == "output"
