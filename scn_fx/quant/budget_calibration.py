# SPDX-License-Identifier: Apache-2.0
"""A calibration whose precisions are then chosen for a budget: `--precision auto --budget ...`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch.fx import GraphModule

from scn_fx.quant.auto_precision import choose_precision
from scn_fx.quant.budget import Budget
from scn_fx.quant.budget_frames import few
from scn_fx.quant.cache import save_cache
from scn_fx.quant.calibration import CalibrationResult
from scn_fx.quant.precision import PrecisionSpec

__all__ = ["chosen_for_budget"]


def chosen_for_budget(
    graph: GraphModule,
    result: CalibrationResult,
    frames: Iterable[Sequence[Any]],
    budget: Budget,
    *,
    precision: PrecisionSpec,
    device: str,
    cache: Path,
    progress: bool | None,
) -> CalibrationResult:
    """Choose precisions on at most 16 of the frames; graph, cache and the returned result have them.

    `result` is that of calibrating `graph` on all frames. Raises as `quant.choose_precision`; the cache then
    keeps the calibration with the precisions it had.
    """
    choice = choose_precision(
        graph, few(frames), budget=budget, device=device, precision=precision, progress=progress
    )
    save_cache(graph, cache)
    seconds = result.seconds + choice.seconds
    return replace(
        result,
        precisions=choice.precisions,
        output_precisions=choice.output_precisions,
        seconds=seconds,
        choice=choice,
    )
