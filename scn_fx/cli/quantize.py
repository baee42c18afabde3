# SPDX-License-Identifier: Apache-2.0
"""`scn-fx quantize`: calibrate, export and compare in one go."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scn_fx.cli.compare import given_limits, limits_options, print_comparison
from scn_fx.cli.export import file_options
from scn_fx.cli.options import FILE
from scn_fx.cli.output import check_output, file_size, json_option, megabytes, print_json
from scn_fx.errors import ArgumentError
from scn_fx.operators.dialects import SCN_FX
from scn_fx.quant.calibrating import calibrate_by_options
from scn_fx.quant.calibration_options import calibration_options, quiet_option
from scn_fx.quant.console import output_width
from scn_fx.quant.layer_table import layer_table
from scn_fx.quant.next_command import MODEL_OPTIONS, from_settings, next_line
from scn_fx.quant.options import Interrupted
from scn_fx.quant.settings_option import settings_option
from scn_fx.quant.status import working

if TYPE_CHECKING:
    from torch.fx import GraphModule

    from scn_fx.quant.script import CalibrationJob
    from scn_fx.runtime import Comparison, Limits

__all__ = ["command"]

_CALIBRATE = (
    *("limit", "method", "improve", "percentile", "bins", "precision", "budget", "outliers", "consumers"),
    *("weights", "device"),
)
_ALSO = {
    "calibrate": {name: name for name in _CALIBRATE},
    "export": {name: name for name in ("exporter", "dialect")},
    "compare": {
        "limit": "compare-limit",
        **{name: name for name in ("identical", "cosine", "sqnr", "max-abs", "allow-zero")},
    },
}
"""What it reads of the tables that the three commands have in a settings file."""


@click.command(context_settings={"show_default": True})
@settings_option("quantize", _ALSO)
@calibration_options
@click.option("--cache", default="scn.calibration.json", type=FILE, help="Calibration cache to write.")
@file_options
@click.option(
    "--compare-limit", default=1, type=click.IntRange(1), help="Compare on at most this many of the frames."
)
@limits_options
@quiet_option
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    precisions: tuple[str, ...],
    cache: Path,
    exporter: str,
    dialect: str,
    output: Path,
    compare_limit: int,
    quiet: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Calibrate, export and compare in one go: from a model and frames to a proven INT8 file.

    \b
    scn-fx quantize --model centerpoint --checkpoint scn.pth --frames sweeps/ --limit 400
    scn-fx quantize --settings scn.toml

    The engine of the file is compared with the calibrated graph; exit 1 if the comparison fails. After
    Ctrl-C, or to use more frames, --resume goes on from the cache.
    """
    check_output(cache, "--cache")
    check_output(output)
    if cache.absolute() == output.absolute():
        raise ArgumentError(f"--cache and --output are both {cache}: name two files.")
    began = time.perf_counter()
    names = ("identical", "cosine", "sqnr", "max_abs", "allow_zero")
    chosen = {name: options.pop(name) for name in names}
    limits = given_limits(chosen)
    dialect = SCN_FX if options["native"] else dialect
    job, graph, result = calibrate_by_options(options, precisions, cache, quiet)
    try:
        with working("exporting", not quiet) as say:
            from scn_fx.exporting import export_onnx
            from scn_fx.quant.script import report

            graph = graph.cpu()
            nodes = export_onnx(graph, output, exporter, dialect)
            say("comparing")
            comparison = _compare(job, graph, output, compare_limit, limits, chosen["allow_zero"])
    except KeyboardInterrupt as error:
        raise Interrupted(f"The calibration is complete, in {cache}; go on with --resume.") from error
    seconds = time.perf_counter() - began
    outcome = report(job, result)
    if as_json:
        facts = {"file": str(output), "bytes": file_size(output), "nodes": nodes, "exporter": exporter}
        facts |= {"dialect": dialect, "seconds": seconds}
        print_json({"calibration": outcome, "export": facts, "comparison": comparison.to_dict()})
    else:
        for line in layer_table(outcome["layers"], output_width()):
            click.echo(line)
        if result.choice is not None:
            click.echo(result.choice.summary())
        print_comparison(comparison, f"{job.model} against {output}")
        click.echo(f"{result.frames} frames, method {result.method}: saved {cache} and {output}")
        click.echo(f"({megabytes(file_size(output))}, {nodes} nodes, {exporter} exporter, {seconds:.1f} s)")
        click.echo(_next(ctx, comparison.ok, cache, output))
    if not comparison.ok:
        ctx.exit(1)


def _compare(
    job: CalibrationJob,
    graph: GraphModule,
    file: Path,
    limit: int,
    limits: Limits | None,
    allow_zero: bool,
) -> Comparison:
    """The graph against the engine of its file, on some of the frames of the calibration."""
    from scn_fx.input_grid import network_grid
    from scn_fx.lidar import parse_grid
    from scn_fx.quant.frame_source import find_frames
    from scn_fx.runtime import Engine, compare

    found = find_frames(job.frames, point_format=job.point_format, limit=limit)
    frames = found.for_network(network_grid(graph), None if job.grid is None else parse_grid(job.grid))
    return compare(graph, Engine(file), frames, limits=limits, allow_zero=allow_zero)


def _next(ctx: click.Context, ok: bool, cache: Path, output: Path) -> str:
    """The file may run; or a look at where the error comes from."""
    if ok:
        frames = ("frames", "point_format", "grid")
        return next_line(ctx, "run", *(() if from_settings(ctx, "output") else (output,)), names=frames)
    words = () if from_settings(ctx, "cache") else ("--cache", cache)
    return next_line(ctx, "sensitivity", *words, names=(*MODEL_OPTIONS, "frames", "point_format"))
