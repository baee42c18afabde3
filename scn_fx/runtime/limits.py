# SPDX-License-Identifier: Apache-2.0
"""How much two executions of one network may differ: as the user says, or as their precisions imply."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from scn_fx.operators.table import onnx_forms
from scn_fx.runtime.difference import ArrayDifference

__all__ = ["ARITHMETIC_TYPES", "RESULT_LIMITS", "Arithmetic", "Limits", "default_limits"]

FIXED_ORDER_CHANNELS = 8
"""Up to this many input channels the order of a float16 convolution's sums is fixed: the result is exact."""

# A float16 value in [1, 2) is off by at most u = 2^-11, uniformly: the power of its relative error is at most
# u^2 / 3.
_HALF_SQNR_DB = 10.0 * math.log10(3.0 * 2.0**22)

# The network may amplify an early error relative to the signal; a factor of ten in amplitude is left for it.
_AMPLIFICATION_DB = 20.0

# A float16 error moves a value across the edge of an int8 step with probability (error / step), and then by a
# whole step: noise of power (error * step). Relative to a value of 20 steps that is 2^-11 / 20.
_FLIP_SQNR_DB = 10.0 * math.log10(20.0 * 2.0**11)

ARITHMETIC_TYPES = tuple(
    op_type for spec, form in onnx_forms() if spec.quantisable for op_type in (form.op_type, *form.also_read)
)
"""ONNX node types that have a precision."""


@dataclass(frozen=True)
class Limits:
    """What each layer and each output must satisfy. None leaves a metric out."""

    identical: bool = False
    """Every bit is the same."""
    cosine: float | None = None
    """Smallest cosine."""
    sqnr_db: float | None = None
    """Smallest signal to quantisation noise ratio in dB."""
    max_abs: float | None = None
    """Largest absolute difference."""
    allow_zero: bool = False
    """Whether a layer may be zero throughout; NaN and infinite values never pass."""
    reason: str = "given by the caller"
    """Where the limits come from, for reports."""

    def __str__(self) -> str:
        parts = ["the same bits"] if self.identical else []
        if self.cosine is not None:
            parts.append(f"cosine >= {self.cosine:.6g}")
        if self.sqnr_db is not None:
            parts.append(f"SQNR >= {self.sqnr_db:g} dB")
        if self.max_abs is not None:
            parts.append(f"max |difference| <= {self.max_abs:g}")
        return f"{', '.join(parts) or 'no NaN, infinite or all-zero values'} ({self.reason})"

    def failures(self, difference: ArrayDifference) -> tuple[str, ...]:
        """What `difference` violates, in words; empty if nothing."""
        found = [text for text in difference.faults if not (self.allow_zero and text.endswith("all zero"))]
        if self.identical and not difference.identical:
            differing = difference.count - difference.equal
            found.append(
                f"{differing} of {difference.count} values differ, by at most {difference.max_abs:.6g}; "
                "expected the same bits"
                if differing
                else "the values are equal, but not their dtypes or signs of zero; expected the same bits"
            )
        if self.cosine is not None and not difference.cosine >= self.cosine:
            found.append(f"cosine {difference.cosine:.6f} is below {self.cosine:g}")
        if self.sqnr_db is not None and not difference.sqnr_db >= self.sqnr_db:
            found.append(f"SQNR {difference.sqnr_db:.1f} dB is below {self.sqnr_db:.1f} dB")
        if self.max_abs is not None and not difference.max_abs <= self.max_abs:
            found.append(f"largest difference {difference.max_abs:.6g} is above {self.max_abs:g}")
        return tuple(found)


RESULT_LIMITS = Limits(
    cosine=0.99, sqnr_db=17.0, reason="the default for two results, which say nothing of their precisions"
)
"""For two arrays of which nothing else is known: the same map in nearly the same precision. Noise of 17 dB is
what a cosine of 0.99 is between vectors of equal length, 10 log10(1 / (2 - 2 * 0.99)); it also finds a wrong
scale, which a cosine does not see."""


@dataclass(frozen=True)
class Arithmetic:
    """How one side computes one convolution or Add."""

    precision: str
    output_precision: str
    in_channels: int | None = None
    """Input channels of a convolution; None for an Add."""

    @property
    def exact(self) -> bool:
        """Whether every backend gives the same bits from the same operands."""
        if self.precision == "fp16":
            return self.in_channels is None or self.in_channels <= FIXED_ORDER_CHANNELS
        return self.precision == "int8"

    @property
    def roundings(self) -> int:
        """Roundings of a float node to float16: the result's, and the weights' (engines hold them so)."""
        return (self.in_channels is not None) + (self.output_precision == "fp16")


def default_limits(reference: Mapping[str, Arithmetic], result: Mapping[str, Arithmetic]) -> Limits:
    """Limits that follow from how both sides compute each convolution and Add, by node name.

    - Same precisions everywhere, and none of them a wide float16 convolution or float32: the same bits.
    - No int8 on either side: independent roundings to float16 add up, see `_HALF_SQNR_DB`.
    - Same int8 nodes beside wide float16 ones: last bits of float16 move values across int8 steps.
    - int8 against float: cosine 0.9 and 6 dB, noise of half the signal's amplitude (networks with random
      weights reach 0.96 and 11 dB). It guards against a broken calibration; it does not prove accuracy.
    """
    both = [*reference.values(), *result.values()]
    same = all(
        (a.precision, a.output_precision) == (result[name].precision, result[name].output_precision)
        for name, a in reference.items()
    )
    if same and all(node.exact for node in both):
        return Limits(identical=True, reason="both sides have the same int8 and narrow fp16 arithmetic")
    int8 = [{name for name, a in side.items() if a.precision == "int8"} for side in (reference, result)]
    if not int8[0] and not int8[1]:
        limit = _less(_HALF_SQNR_DB, _roundings(both))
        return Limits(cosine=_cosine(limit), sqnr_db=limit, reason="float on both sides, rounded differently")
    if int8[0] == int8[1]:
        limit = _less(_FLIP_SQNR_DB, max(len(reference), 1))
        return Limits(cosine=_cosine(limit), sqnr_db=limit, reason="float nodes beside int8 ones")
    return Limits(cosine=0.9, sqnr_db=6.0, reason="int8 against float")


def _roundings(nodes: Iterable[Arithmetic]) -> int:
    return max(1, sum(node.roundings for node in nodes))


def _less(single_db: float, times: int) -> float:
    """SQNR after `times` independent errors of `single_db` each, less the allowance for amplification."""
    return round(single_db - 10.0 * math.log10(times) - _AMPLIFICATION_DB, 1)


def _cosine(sqnr_db: float) -> float:
    """Cosine at that SQNR when the error is perpendicular to the signal: 1 / sqrt(1 + noise / signal)."""
    return 1.0 / math.sqrt(1.0 + 10.0 ** (-sqnr_db / 10.0))
