# SPDX-License-Identifier: Apache-2.0
"""`scn-fx export`: from a model and its calibration cache to an ONNX file."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from scn_fx.cli.network_option import frames_of
from scn_fx.cli.options import FILE, grid_option, limit_option, timing_device_option
from scn_fx.cli.output import check_output, file_size, json_option, megabytes, print_json, working
from scn_fx.exporting import EXPORTERS
from scn_fx.lidar import VoxelGrid
from scn_fx.operators.dialects import DIALECTS, LIBSPCONV, SCN_FX
from scn_fx.quant.auto_options import auto_budget
from scn_fx.quant.calibration_options import budget_option, format_option, model_option
from scn_fx.quant.next_command import from_settings, given, next_line
from scn_fx.quant.options import checkpoint_options
from scn_fx.quant.settings_option import settings_option

if TYPE_CHECKING:
    from torch.fx import GraphModule

    from scn_fx.quant import PrecisionChoice
    from scn_fx.quant.budget import Budget

__all__ = ["command", "file_options"]

_Command = TypeVar("_Command", bound=Callable[..., Any])
_FILE_OPTIONS = (
    click.option(
        "--exporter", default="dynamo", type=click.Choice(EXPORTERS), help="Exporter of torch.onnx."
    ),
    click.option(
        "--dialect",
        default=LIBSPCONV,
        type=click.Choice(sorted(DIALECTS)),
        help="libspconv: for NVIDIA's libspconv and this engine. scn_fx: also holds what only this engine "
        "has.",
    ),
    click.option("--output", "-o", default="scn.onnx", type=FILE, help="ONNX file to write."),
)


def file_options(command: _Command) -> _Command:
    """Adds the options of an ONNX file that a command writes."""
    for option in reversed(_FILE_OPTIONS):
        command = option(command)
    return command


@click.command(context_settings={"show_default": True})
@settings_option("export")
@model_option
@click.option("--cache", type=FILE, help="Calibration cache of this model, from `scn-fx calibrate`.")
@click.option(
    "--float", "as_float", is_flag=True, help="Export without ranges and precisions, no cache needed."
)
@checkpoint_options
@grid_option
@file_options
@click.option(
    "--precision",
    "precisions",
    multiple=True,
    metavar="PATTERN=PRECISION",
    help="Change precisions after loading the cache, e.g. 'extra_conv.*=fp16'; repeatable. 'auto' chooses "
    "for --budget on --frames.",
)
@budget_option
@click.option("--frames", type=FILE, help="For --precision auto: frames as for calibrate.")
@format_option
@limit_option(16)
@timing_device_option
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    model: str,
    cache: Path | None,
    as_float: bool,
    checkpoint: Path | None,
    checkpoint_prefix: str | None,
    checkpoint_layout: str | None,
    outputs: tuple[str, ...],
    native: bool,
    grid: VoxelGrid | None,
    exporter: str,
    dialect: str,
    precisions: tuple[str, ...],
    budget: str | None,
    frames: Path | None,
    point_format: str | None,
    limit: int,
    device: str,
    output: Path,
    as_json: bool,
) -> None:
    """Write the ONNX file of a model, calibrated (--cache) or float (--float)."""
    if as_float and not given(ctx, "cache"):
        cache = None  # of the settings, which are those of a calibrated file too
    if as_float == (cache is not None):
        raise click.UsageError("Give either --cache (made by `scn-fx calibrate`) or --float.")
    if as_float and precisions:
        raise click.UsageError("--precision changes a calibrated graph; leave it out with --float.")
    automatic, others = auto_budget(precisions, budget)
    if automatic is None and not given(ctx, "frames"):
        frames = None  # of the settings, for other commands
    if (automatic is None) != (frames is None):
        raise click.UsageError("--frames and --precision auto belong together: choices are made on frames.")
    dialect = SCN_FX if native else dialect
    check_output(output)
    began = time.perf_counter()
    with working("capturing the model") as say:
        from scn_fx.cli.models import load_model
        from scn_fx.exporting import export_onnx

        graph = load_model(
            model,
            checkpoint=checkpoint,
            checkpoint_prefix=checkpoint_prefix,
            checkpoint_layout=checkpoint_layout,
            grid=grid,
            outputs=outputs,
            native=native,
            cache=cache,
            precisions=others,
        )
        choice = None
        if automatic is not None and frames is not None:
            say("choosing precisions")
            choice = _choose(graph, automatic, frames_of(frames, graph, grid, point_format, limit), device)
        say("exporting")
        nodes = export_onnx(graph, output, exporter, dialect)
    seconds, size = time.perf_counter() - began, file_size(output)
    if as_json:
        kind = "float" if as_float else "calibrated"
        facts = {"file": str(output), "bytes": size, "nodes": nodes, "exporter": exporter}
        facts |= {"dialect": dialect, "graph": kind}
        print_json({**facts, "seconds": seconds, "choice": None if choice is None else choice.to_dict()})
        return
    if choice is not None:
        click.echo(str(choice))
    click.echo(f"saved {output} ({megabytes(size)}, {nodes} nodes, {exporter} exporter, {seconds:.1f} s)")
    file = () if from_settings(ctx, "output") else (output,)
    ranges = () if cache is None or from_settings(ctx, "cache") else ("--cache", cache)
    if as_float:  # with settings, compare would take the cache that they name
        click.echo(next_line(ctx, "run", *file, names=()))
    else:
        click.echo(next_line(ctx, "compare", *file, *ranges))


def _choose(graph: GraphModule, budget: Budget, frames: Any, device: str) -> PrecisionChoice:
    """Precisions for a budget; layers that the graph has in float16 stay so."""
    from scn_fx.quant import choose_precision
    from scn_fx.quant.ranges import quantizable

    now = {layer.name: layer.precision for layer in quantizable(graph)}
    return choose_precision(graph, frames, budget=budget, device=device, precision=now, progress=False)
