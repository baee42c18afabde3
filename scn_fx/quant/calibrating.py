# SPDX-License-Identifier: Apache-2.0
"""A calibration as commands run it: from their options to a graph with ranges, or what Ctrl-C leaves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scn_fx.quant.auto_options import auto_budget
from scn_fx.quant.options import Interrupted
from scn_fx.quant.script import CalibrationJob, parse_precision, run_job

if TYPE_CHECKING:
    from torch.fx import GraphModule

    from scn_fx.quant.calibration import CalibrationResult

__all__ = ["calibrate_by_options"]


def calibrate_by_options(
    options: dict[str, Any], precisions: tuple[str, ...], output: Path, quiet: bool
) -> tuple[CalibrationJob, GraphModule, CalibrationResult]:
    """Calibrate as `quant.calibration_options` say, and write the cache `output`.

    Raises the errors of the stages, and Interrupted for Ctrl-C, which says how to go on.
    """
    budget, others = auto_budget(precisions, options.pop("budget"))
    job = CalibrationJob(**options, output=output, budget=budget, precision=parse_precision(others))
    if job.checkpoint is None and ":" not in job.model:
        click.echo(f"No checkpoint: {job.model} gets random weights, for trying out.", err=True)
    try:
        graph, result = run_job(job, progress=not quiet)
    except KeyboardInterrupt as error:
        kept = output.with_name(f"{output.name}.part")
        raise Interrupted(
            f"What was counted is kept in {kept}; go on with --resume." if kept.exists() else ""
        ) from error
    return job, graph, result
