# SPDX-License-Identifier: Apache-2.0
"""`python -m benchmarks points`: from raw points to the bird's-eye-view map, beside spconv's generator."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from benchmarks.entry import run_command
from benchmarks.spread import spread_text
from scn_fx.cli.options import FILE, device_option, small_option
from scn_fx.errors import ScnError
from scn_fx.files.atomic import write_file
from scn_fx.quant.console import show_every_character
from scn_fx.quant.options import Refusal

__all__ = ["command", "main"]

_ROUNDS = {"cpu": 9, "cuda": 100}


@click.command(context_settings={"show_default": True})
@click.option("--points", "file", type=FILE, help="A point file of five columns [default: synthetic sweeps].")
@click.option("--format", "layout", metavar="NAME", help="Its format [default: guessed].")
@device_option
@click.option("--threads", type=click.IntRange(1, 1024), default=2, help="Of a CPU.")
@click.option("--repeat", type=click.IntRange(1), help="Rounds that count [default: 9; GPU: 100].")
@small_option
@click.option("--workdir", type=FILE, default="build/benchmarks", help="Keeps the network's files here.")
@click.option("--json", "report_file", type=FILE, metavar="FILE", help="Write the report there as well.")
def command(report_file: Path | None, device: str, repeat: int | None, workdir: Path, **options: Any) -> None:
    """Time points to voxels and points to map in int8, in turn with spconv's PointToVoxel and encoder.

    spconv keeps ten points of a voxel and runs the encoder in fp32 on the CPU, in fp16 on a GPU.
    """
    from benchmarks.points.run import run_points

    try:
        report = run_points(
            device=device,
            repeat=repeat or _ROUNDS["cpu" if device == "cpu" else "cuda"],
            workdir=Path(workdir),
            say=lambda text: print(f"measuring: {text}", file=sys.stderr, flush=True),
            **options,
        )
        show(report)
        if report_file:
            write_file(report_file, json.dumps(report, indent=1))
            click.echo(f"saved {report_file}")
    except ScnError as error:
        raise Refusal(str(error)) from error


def show(report: dict[str, Any]) -> None:
    """The report as a table."""
    from scn_fx.cli.output import print_table, table

    frame, machine = report["frame"], report["machine"]
    cpu = f"{machine['cpu']}, {machine['isa']}, {report['settings']['threads']} thread(s)"
    where = cpu if report["device"] == "cpu" else report["device"]
    click.echo(f"{where}; {frame['points']:,} points in {frame['voxels']:,} voxels")
    clocks = [clock for clock in ("event", "wall") if clock in report["runs"][0]]
    columns = ["what", "engine"]
    for clock in clocks:
        columns += [f"{clock} ms", "× spconv"]  # noqa: RUF001
    made = table("Time of a frame", columns)
    for row in sorted(report["runs"], key=lambda row: (row["what"], row["engine"])):
        cells = [row["what"], row["engine"]]
        for clock in clocks:
            cells += [spread_text(row[clock]["milliseconds"]), spread_text(row[clock]["speedup"])]
        made.add_row(*cells)
    print_table(made)
    for note in report["notes"]:
        click.echo(f"note: {note}")


def main(arguments: list[str] | None = None) -> int:
    """Run it; 1 after an error, 2 for wrong usage."""
    return run_command(command, "python -m benchmarks points", arguments)


if __name__ == "__main__":
    show_every_character()
    sys.exit(main())
