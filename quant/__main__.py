# SPDX-License-Identifier: Apache-2.0
"""`python -m quant`: calibrate a model on LiDAR frames and write a calibration cache."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from quant import CONSUMERS, IMPROVEMENTS, METHODS, WEIGHTS
from quant.console import show_every_character, tidy_warnings
from quant.processes import launched_rank
from quant.script import CalibrationJob, parse_precision, report, run_job
from scn_fx.errors import MissingPackageError, ScnError
from scn_fx.lidar import GRID_SYNTAX
from scn_fx.lidar.frame_paths import FRAME_SYNTAX

try:
    import click

    from quant.auto_options import auto_budget
    from quant.calibration_options import (
        budget_option,
        format_option,
        model_option,
        most_frames_option,
        outliers_option,
        quiet_option,
    )
    from quant.options import Refusal, checkpoint_options
except ImportError as error:
    raise SystemExit(str(MissingPackageError.of("click", "quant", "python -m quant"))) from error


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@model_option
@click.option(
    "--frames",
    required=True,
    type=click.Path(path_type=Path),
    help=f"A frame file, a folder with its subfolders, or a list of files: {FRAME_SYNTAX}. "
    "Or package.module:callable, which gives frames.",
)
@click.option(
    "--output",
    "-o",
    default="calibration.json",
    type=click.Path(path_type=Path),
    help="Cache file to write.",
)
@checkpoint_options
@click.option("--grid", help=f"Voxel grid of model and points: {GRID_SYNTAX}. Default: the model's own.")
@format_option
@most_frames_option
@click.option("--method", default="mse", type=click.Choice(METHODS), help="How values give a range.")
@click.option(
    "--improve",
    multiple=True,
    type=click.Choice(IMPROVEMENTS),
    help="Fit weights (equalize, round) or biases as well, so that int8 loses less; repeatable.",
)
@click.option("--percentile", default=99.99, help="For --method percentile, in percent: above 1, up to 100.")
@click.option("--bins", "num_bins", default=2048, help="Least histogram bins of a value.")
@click.option(
    "--precision",
    "precisions",
    multiple=True,
    metavar="PATTERN=PRECISION",
    help="Override default precisions, e.g. 'conv1.*=fp16'; repeatable, the last match wins. 'auto' chooses "
    "for --budget.",
)
@budget_option
@outliers_option
@click.option(
    "--consumers",
    default="aware",
    type=click.Choice(CONSUMERS),
    help="Fit the ranges of an Add before a ReLU to what the ReLU leaves of its operands, or to all of them.",
)
@click.option(
    "--weights",
    type=click.Choice(WEIGHTS),
    help="Fit the ranges of weights to the layer's output on the frames, or take the largest magnitudes. "
    "Default: max for --method max, otherwise output.",
)
@click.option(
    "--device",
    default="cpu",
    type=click.Choice(["cpu", "cuda"]),
    help="Where the network runs, and with --precision auto the engine is timed.",
)
@click.option("--resume", is_flag=True, help="Go on from what an interrupted run has kept beside --output.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
@quiet_option
def main(precisions: tuple[str, ...], as_json: bool, quiet: bool, **options: Any) -> None:
    """Find int8 ranges for MODEL on LiDAR FRAMES and write them, with a precision for each layer, to a cache.

    \b
    python -m quant --model centerpoint --checkpoint scn.pth --frames sweeps/ --limit 400
    torchrun --nproc-per-node=2 -m quant --model centerpoint --frames sweeps/

    Load the cache with quant.load_cache(graph, path) before export.
    """
    try:
        options["budget"], precisions = auto_budget(precisions, options["budget"])
        job = CalibrationJob(**options, precision=parse_precision(precisions))
        if job.checkpoint is None and ":" not in job.model:
            click.echo(f"No checkpoint: {job.model} gets random weights, for trying out.", err=True)
        with tidy_warnings():
            _, result = run_job(job, progress=False if quiet else None)
    except ScnError as error:
        raise Refusal(str(error)) from error
    except KeyboardInterrupt as error:
        kept = list(job.output.parent.glob(f"{job.output.name}.part"))
        advice = f" What was counted is kept in {kept[0]}; go on with --resume." if kept else ""
        raise Refusal(f"Interrupted.{advice}") from error
    if launched_rank() > 0:
        return
    outcome = report(job, result)
    if as_json:
        click.echo(json.dumps(outcome, indent=1))
        return
    _print_table(outcome["layers"])
    if result.choice is not None:
        click.echo(result.choice.summary())
    size = job.output.stat().st_size / 1024
    click.echo(
        f"{result.frames} frames, method {result.method}: saved as {job.output} ({size:.0f} KiB, "
        f"{result.seconds:.1f} s)"
    )


def _print_table(rows: list[dict[str, Any]]) -> None:
    width = max(len(row["name"]) for row in rows)
    click.echo(f"{'layer':<{width}}  precision  output  input range (largest value seen)")
    for row in rows:
        pairs = zip(row["ranges"], row["largest"], strict=True)
        ranges = ", ".join(f"{amax:.6g} ({largest:.6g})" for amax, largest in pairs)
        click.echo(f"{row['name']:<{width}}  {row['precision']:<9}  {row['output_precision']:<6}  {ranges}")


if __name__ == "__main__":
    show_every_character()
    main(prog_name="python -m quant")
