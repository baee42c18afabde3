# SPDX-License-Identifier: Apache-2.0
"""`scn-fx retrofit`: int8 ranges for an ONNX file whose model is not at hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from scn_fx.cli.options import FILE, frames_option, grid_option, timing_device_option
from scn_fx.cli.output import (
    check_output,
    file_size,
    json_option,
    megabytes,
    print_json,
    working,
)
from scn_fx.lidar import VoxelGrid
from scn_fx.quant import METHODS
from scn_fx.quant.calibration_options import (
    budget_option,
    format_option,
    most_frames_option,
    outliers_option,
    quiet_option,
)
from scn_fx.quant.console import one_line, output_width
from scn_fx.quant.layer_table import layer_table
from scn_fx.quant.next_command import from_settings, next_line
from scn_fx.quant.settings_option import settings_option

__all__ = ["command"]


@click.command(context_settings={"show_default": True})
@click.argument("file", type=FILE)
@settings_option("retrofit")
@frames_option
@grid_option
@format_option
@most_frames_option
@click.option("--method", type=click.Choice(METHODS), help="How values give a range; calibrate's default.")
@click.option(
    "--precision",
    "precisions",
    multiple=True,
    metavar="PATTERN=PRECISION",
    help="Override default precisions, e.g. 'conv1.*=fp16'; repeatable. 'auto' chooses for --budget.",
)
@budget_option
@timing_device_option
@outliers_option
@click.option("--force", is_flag=True, help="Replace ranges that FILE already has.")
@click.option("--output", "-o", required=True, type=FILE, help="File to write; it may be FILE.")
@quiet_option
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    file: Path,
    frames: Path,
    grid: VoxelGrid | None,
    point_format: str | None,
    limit: int | None,
    method: str | None,
    precisions: tuple[str, ...],
    budget: str | None,
    device: str,
    outliers: str,
    force: bool,
    output: Path,
    quiet: bool,
    as_json: bool,
) -> None:
    """Calibrate a float16 ONNX FILE on frames, and write its ranges and precisions into a copy.

    \b
    scn-fx retrofit scn.onnx --frames sweeps/ -o scn.int8.onnx

    The file runs in float32; nodes, weights and names stay as they are. Add nodes get ranges too.
    """
    from scn_fx.quant.auto_options import auto_budget
    from scn_fx.quant.script import parse_precision

    check_output(output)
    automatic, others = auto_budget(precisions, budget)
    with working("reading the file"):
        from scn_fx.cli.network_option import frames_of
        from scn_fx.quant.retrofitting import retrofit
        from scn_fx.runtime.file_graph import file_graph

        chosen = frames_of(frames, file_graph(file).graph, grid, point_format, limit)
    how: dict[str, Any] = {} if method is None else {"method": method}
    report = retrofit(
        file,
        chosen,
        output,
        precision=parse_precision(others),
        budget=automatic,
        device=device,
        overwrite=force,
        outliers=outliers,
        progress=not quiet,
        **how,
    )
    outcome = report.to_dict()
    if as_json:
        print_json(outcome)
        return
    for line in layer_table(outcome["layers"], output_width()):
        click.echo(one_line(line))
    if report.choice is not None:
        click.echo(report.choice.summary())
    click.echo(
        f"{outcome['frames']} frames, method {outcome['method']}: {report.nodes} nodes with ranges"
        f"{f' ({report.replaced} replaced)' if report.replaced else ''}, saved as {output} "
        f"({megabytes(file_size(output))})"
    )
    words = () if from_settings(ctx, "output") else (output,)
    click.echo(next_line(ctx, "run", *words, names=("frames", "point_format", "grid")))
