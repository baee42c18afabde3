# SPDX-License-Identifier: Apache-2.0
"""What a choice of precisions has to keep to: "sqnr>=30", "metric_loss<=0.3", "time<=1.1"."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from scn_fx.errors import CalibrationError

__all__ = ["BUDGET_SYNTAX", "Budget", "parse_budget"]

BUDGET_SYNTAX = "'sqnr>=DB', 'metric_loss<=LOSS' or 'time<=FACTOR'"

_KINDS = {"sqnr": ">=", "metric_loss": "<=", "time": "<="}
_TEXT = re.compile(
    r"\s*(?P<kind>\w+)\s*(?P<relation>[<>]=?|=+)\s*(?P<value>[^\s<>=]+?)\s*(?P<unit>dB|db|x)?\s*"
)


@dataclass(frozen=True)
class Budget:
    """A limit.

    Attributes:
        kind: "sqnr" (dB at the outputs against float32, at least), "metric_loss" (of the metric against
            float32, at most) or "time" (of a frame, as a multiple of the time with every layer in int8, at
            most).
        value: the limit.
    """

    kind: str
    value: float

    def __str__(self) -> str:
        return f"{self.kind}{_KINDS[self.kind]}{self.value:g}"

    def holds(self, reached: float) -> bool:
        """Whether `reached`, in the budget's own unit, is within the limit."""
        return reached >= self.value if self.kind == "sqnr" else reached <= self.value


def parse_budget(budget: Budget | str) -> Budget:
    """The budget that a text names (`BUDGET_SYNTAX`). CalibrationError for a text that names none."""
    if isinstance(budget, Budget):
        return budget
    found = _TEXT.fullmatch(budget) if isinstance(budget, str) else None
    if found is None:
        raise CalibrationError(f"Expected a budget as {BUDGET_SYNTAX}, got {budget!r}.")
    kind, relation = found["kind"], found["relation"]
    if kind not in _KINDS:
        raise CalibrationError(
            f"Unknown budget {kind!r} in {budget!r}; expected one of {', '.join(_KINDS)}: {BUDGET_SYNTAX}."
        )
    if relation != _KINDS[kind]:
        raise CalibrationError(
            f"The budget {kind} is a limit from {'below' if kind == 'sqnr' else 'above'}: write "
            f"{kind}{_KINDS[kind]}{found['value']}, got {budget!r}."
        )
    try:
        value = float(found["value"])
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise CalibrationError(f"The budget {budget!r} needs a finite number behind {relation}.")
    unit = found["unit"]
    if unit and (unit.lower() == "db") != (kind == "sqnr"):
        raise CalibrationError(f"The budget {budget!r} has the wrong unit: only sqnr is in dB.")
    if kind == "time" and value < 1:
        raise CalibrationError(
            "time counts in multiples of the time with every layer in int8, so it is 1 or more (1.1: a tenth "
            f"slower), got {budget!r}."
        )
    return Budget(kind, value)
