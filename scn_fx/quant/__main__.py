# SPDX-License-Identifier: Apache-2.0
"""`python -m quant`: calibrate a model on LiDAR frames and write a calibration cache."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from scn_fx.errors import MissingPackageError, ScnError
from scn_fx.quant.console import output_width, show_every_character, tidy_warnings
from scn_fx.quant.layer_table import layer_table
from scn_fx.quant.processes import launched_rank
from scn_fx.quant.script import report

try:
    import click

    from scn_fx.quant.calibrating import calibrate_by_options
    from scn_fx.quant.calibration_options import calibration_options, quiet_option
    from scn_fx.quant.next_command import from_settings, next_line
    from scn_fx.quant.options import Interrupted, Refusal
    from scn_fx.quant.script import report
    from scn_fx.quant.settings_option import settings_option
except ImportError as error:
    raise SystemExit(str(MissingPackageError.of("click", "quant", "python -m quant"))) from error


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@settings_option("calibrate")
@calibration_options
@click.option(
    "--output",
    "-o",
    default="calibration.json",
    type=click.Path(path_type=Path),
    help="Cache file to write.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
@quiet_option
@click.pass_context
def main(
    ctx: click.Context, precisions: tuple[str, ...], output: Path, as_json: bool, quiet: bool, **options: Any
) -> None:
    """Find int8 ranges for MODEL on LiDAR FRAMES and write them, with a precision for each layer, to a cache.

    \b
    python -m quant --model centerpoint --checkpoint scn.pth --frames sweeps/ --limit 400
    torchrun --nproc-per-node=2 -m scn_fx.quant --model centerpoint --frames sweeps/

    Load the cache with quant.load_cache(graph, path) before export.
    """
    try:
        with tidy_warnings():
            job, _, result = calibrate_by_options(options, precisions, output, quiet)
    except ScnError as error:
        raise Refusal(str(error)) from error
    except KeyboardInterrupt as error:
        raise Interrupted() from error
    if launched_rank() > 0:
        return
    outcome = report(job, result)
    if as_json:
        click.echo(json.dumps(outcome, indent=1))
        return
    for line in layer_table(outcome["layers"], output_width()):
        click.echo(line)
    if result.choice is not None:
        click.echo(result.choice.summary())
    size = output.stat().st_size / 1024
    click.echo(
        f"{result.frames} frames, method {result.method}: saved as {output} ({size:.0f} KiB, "
        f"{result.seconds:.1f} s)"
    )
    words = () if from_settings(ctx, "output") else ("--cache", output)
    click.echo(next_line(ctx, "export", *words))


if __name__ == "__main__":
    show_every_character()
    main(prog_name="python -m quant")
