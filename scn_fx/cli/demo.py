# SPDX-License-Identifier: Apache-2.0
"""`scn-fx demo`: the whole path on a LiDAR frame, with proof that the result is right."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

from scn_fx.cli.options import FILE, small_option, threads_option
from scn_fx.cli.output import json_option, megabytes, print_json, print_table, table
from scn_fx.errors import ArgumentError, MissingPackageError
from scn_fx.quant.next_command import next_line

if TYPE_CHECKING:
    from scn_fx.cli.demo_job import DemoReport

__all__ = ["command"]

_NEEDED = {
    "torch": "torch",
    "spconv": "spconv-cpu",
    "onnx": "export",
    "onnxscript": "export",
    "matplotlib": "plot",
}


@click.command(context_settings={"show_default": True})
@click.option(
    "--frames",
    type=FILE,
    help="Folder of real frames to use as well [default: the one that SCN_FX_DATA names].",
)
@click.option("--output-dir", default="demo_output", type=FILE, help="Where files go.")
@threads_option
@small_option
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    frames: Path | None,
    output_dir: Path,
    threads: int | None,
    small: bool,
    as_json: bool,
) -> None:
    """Run the whole path on a LiDAR frame and prove the result.

    The sparse encoder of a CenterPoint detector (trained on synthetic scenes; random weights with --small or
    where the trained ones are missing) is captured, calibrated, exported by torch.onnx.export and run by the
    engine in INT8. Exit 1 if the engine's result is not bit-identical to the calibrated graph's.
    """
    missing = [package for package in _NEEDED if find_spec(package) is None]
    if missing:
        raise MissingPackageError.of(missing[0], _NEEDED[missing[0]], "The demo")
    from scn_fx.cli.demo_job import DemoSettings, run_demo

    if output_dir.exists() and not output_dir.is_dir():
        raise ArgumentError(f"--output-dir {output_dir} is a file: name a folder.")
    settings = DemoSettings(output_dir=output_dir, frames=frames, threads=threads, small=small)
    report = run_demo(settings, say=_silent if as_json else click.echo)
    if as_json:
        print_json(report.to_dict())
    else:
        _print(ctx, report)
    if not report.ok:
        ctx.exit(1)


def _silent(text: str) -> None:
    pass


def _print(ctx: click.Context, report: DemoReport) -> None:
    made = table("", ("frame", "voxels", "bit-identical", "cosine", "SQNR dB", "int8 ms", "fp32 ms"))
    for column in made.columns[1:]:
        column.justify = "right"
    for result in report.results:
        identical = f"yes, {result.compared} of {result.compared}" if result.ok else "NO"
        made.add_row(
            result.frame,
            f"{result.voxels:,}",
            identical,
            f"{result.accuracy.cosine:.5f}",
            f"{result.accuracy.sqnr_db:.1f}",
            f"{result.int8_ms:.0f}",
            f"{result.fp32_ms:.0f}",
        )
    print_table(made)
    click.echo(
        "bit-identical: nodes and output of engine and calibrated graph. cosine, SQNR: int8 against fp32.\n"
        f"{report.nodes} ONNX nodes, {report.convolutions} convolutions; {report.threads} threads, "
        f"{report.isa}; times are the best of {report.repeats} runs."
    )
    found = report.detections
    if found is not None:
        click.echo(
            f"detector: mean AP {100 * found.ap_float:.2f} in float32, {100 * found.ap_int8:.2f} in INT8 on "
            f"{found.frames} held-out scenes; boxes of the first are in the picture."
        )
    for failure in report.failures:
        click.echo(f"FAILED: {failure}")
    files = ", ".join(f"{path} ({megabytes(size)})" for path, size in report.files.items())
    click.echo(f"saved {files} ({report.seconds:.1f} s)")
    click.echo(next_line(ctx, "inspect", next(iter(report.files)), names=()))
