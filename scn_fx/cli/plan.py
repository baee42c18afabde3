# SPDX-License-Identifier: Apache-2.0
"""`scn-fx plan`: an ONNX file made ready for one kind of processor."""

from __future__ import annotations

import time
from pathlib import Path

import click

from scn_fx.cli.options import FILE, device_option, single_option
from scn_fx.cli.output import check_output, file_size, json_option, megabytes, print_json, working
from scn_fx.quant.next_command import next_line

__all__ = ["command"]


@click.command(context_settings={"show_default": True})
@click.argument("file", type=FILE)
@click.option("--output", "-o", type=FILE, help="The plan; FILE with the ending .plan if left out.")
@single_option
@device_option
@click.option("--max-batch-size", type=click.IntRange(1), help="On a GPU: the largest batch of a frame.")
@click.option("--max-voxels", type=click.IntRange(1), help="On a GPU: the most voxels of a frame.")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    file: Path,
    output: Path | None,
    precision: str | None,
    device: str,
    max_batch_size: int | None,
    max_voxels: int | None,
    as_json: bool,
) -> None:
    """Make a plan of an ONNX FILE for one kind of processor.

    It loads in a fraction of the time and without ONNX, and has the same results; other kinds of processors
    and other versions of the format refuse it.
    """
    from scn_fx.errors import ArgumentError
    from scn_fx.files.onnx_models import read_model
    from scn_fx.runtime import save_plan

    output = output or file.with_suffix(".plan")
    if output == file:
        raise ArgumentError(f"--output {output} is the ONNX file itself. Name another file.")
    check_output(output)
    began = time.perf_counter()
    with working("making the plan"):
        save_plan(
            file,
            output,
            device,
            precision=precision,
            max_batch_size=max_batch_size,
            max_voxels=max_voxels,
        )
    seconds, size = time.perf_counter() - began, file_size(output)
    plan = read_model(output)["plan"]
    if as_json:
        print_json({"file": str(output), "bytes": size, "seconds": seconds, **plan})
        return
    click.echo(f"saved {output} ({megabytes(size)}, format {plan['format']}, for {plan['kind']})")
    place = () if device == "cpu" else ("--device", device)
    click.echo(next_line(ctx, "run", output, *place, names=()))
