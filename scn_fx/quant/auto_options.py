# SPDX-License-Identifier: Apache-2.0
"""`--precision auto --budget ...` of a command line."""

from __future__ import annotations

from collections.abc import Sequence

from scn_fx.errors import CalibrationError
from scn_fx.quant.budget import BUDGET_SYNTAX, Budget, parse_budget

__all__ = ["auto_budget"]


def auto_budget(precisions: Sequence[str], budget: str | None) -> tuple[Budget | None, tuple[str, ...]]:
    """The budget if precisions are to be chosen by themselves, and the precisions that are given.

    `--precision auto` may stand beside patterns: layers that those make other than int8 are not free. Raises
    CalibrationError for one of the two without the other, or a metric's budget (there is no metric here).
    """
    others = tuple(text for text in precisions if text != "auto")
    if len(others) == len(precisions):
        if budget is not None:
            raise CalibrationError("--budget goes with --precision auto: give both.")
        return None, others
    if budget is None:
        raise CalibrationError(f"--precision auto needs --budget: {BUDGET_SYNTAX}.")
    found = parse_budget(budget)
    if found.kind == "metric_loss":
        raise CalibrationError(
            "A metric's budget needs a function that evaluates the network: call quant.choose_precision(..., "
            "metric=...) in Python. On the command line give 'sqnr>=DB' or 'time<=FACTOR'."
        )
    return found, others
