# SPDX-License-Identifier: Apache-2.0
"""`python -m benchmarks growth`: how time grows with the voxels of a frame and with the frames of a batch."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from benchmarks.entry import run_command
from benchmarks.spread import spread_text
from scn_fx.cli.options import FILE, device_option, small_option
from scn_fx.errors import ArgumentError, ScnError
from scn_fx.files.atomic import write_file
from scn_fx.quant.console import show_every_character
from scn_fx.quant.options import Refusal

__all__ = ["command", "main", "measure_growth"]

_VOXELS, _BATCHES, _BATCH_VOXELS = "17000,34000,57000,80000,120000,160000,200000", "1,2,4,8", 80_000
_SMALL_VOXELS, _SMALL_BATCH_VOXELS = "250,500,1000", 500
_ROUNDS = {"cpu": (5, 1), "cuda": (100, 10)}


@click.command(context_settings={"show_default": True})
@click.option("--voxels", metavar="N,N", help=f"Of single frames [default: {_VOXELS}].")
@click.option("--batches", default=_BATCHES, metavar="B,B", help="Frames of a batch.")
@click.option(
    "--batch-voxels",
    type=click.IntRange(2),
    help=f"Of each frame of a batch [default: {_BATCH_VOXELS}].",
)
@device_option
@click.option(
    "--repeat", type=click.IntRange(1), help="Rounds, after some to warm up [default: 5; GPU: 100]."
)
@small_option
@click.option("--workdir", type=FILE, default="build/benchmarks", help="Keeps the network's files here.")
@click.option("--json", "report_file", type=FILE, metavar="FILE", help="Write the report there as well.")
@click.option(
    "--plot", "plot_file", type=FILE, metavar="FILE.svg", help="Draw it (or .png); needs matplotlib."
)
def command(report_file: Path | None, plot_file: Path | None, **options: Any) -> None:
    """Time CenterPoint's encoder over synthetic frames of growing density, and over batches, beside spconv.

    On the CPU in fp32, fp16 and int8 on one thread, beside spconv in fp32; on a GPU in fp16 and int8 with
    CUDA graphs, beside spconv in fp16.
    """
    from benchmarks.growth.plot import check_plot, plot_growth

    try:
        if plot_file:
            check_plot(plot_file)
        report = measure_growth(**options)
        _show(report)
        if report_file:
            write_file(report_file, json.dumps(report, indent=1))
            click.echo(f"saved {report_file}")
        if plot_file:
            plot_growth(report, plot_file)
            click.echo(f"saved {plot_file}")
    except ScnError as error:
        raise Refusal(str(error)) from error


def measure_growth(
    *,
    voxels: str | None,
    batches: str,
    batch_voxels: int | None,
    device: str,
    repeat: int | None,
    small: bool,
    workdir: Path,
) -> dict[str, Any]:
    """The report, plain data. ArgumentError for options that do not fit, and the errors of `run_growth`."""
    from benchmarks.growth.frames import sizes_of
    from benchmarks.growth.run import run_growth
    from scn_fx.bench.settings import GpuSettings

    single = _numbers("--voxels", voxels or (_SMALL_VOXELS if small else _VOXELS), 2)
    each = batch_voxels or (_SMALL_BATCH_VOXELS if small else _BATCH_VOXELS)
    kind = "cpu" if device == "cpu" else "cuda"
    rounds, warmup = _ROUNDS[kind]
    report = run_growth(
        sizes_of(single, _numbers("--batches", batches, 1), each),
        device=kind,
        number=0 if kind == "cpu" else GpuSettings(device=device).number,
        repeat=repeat or rounds,
        warmup=warmup,
        small=small,
        workdir=workdir,
        say=lambda text: print(f"measuring: {text}", file=sys.stderr, flush=True),
    )
    report["settings"]["batch_voxels"] = each
    return report


def _numbers(option: str, text: str, least: int) -> tuple[int, ...]:
    try:
        found = tuple(int(part) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or min(found) < least:
        raise ArgumentError(
            f"{option} must be whole numbers from {least} on with commas between, as 2,4; got {text!r}."
        )
    return found


def _show(report: dict[str, Any]) -> None:
    from scn_fx.cli.output import print_table, table

    machine = report["machine"]
    cpu = report["device"] == "cpu"
    where = f"{machine['cpu']}, {machine['isa']}, one thread" if cpu else report["device"]
    load = "" if machine["load"] is None else f"; load before: {machine['load']:.1f}"
    click.echo(f"{where}; torch {machine['torch']}, {machine['spconv'] or 'no spconv'}{load}")
    columns = ["batch", "voxels", "Mpairs", "engine", "precision"]
    right = ["batch", "voxels", "Mpairs"]
    clocks = ("wall",) if cpu else ("event", "wall")
    for clock in clocks:
        columns += [f"{clock} ms", f"{clock} ms/Mpair", f"{clock} × spconv"]  # noqa: RUF001
        right.append(f"{clock} ms/Mpair")
    made = table("Time of a run", columns, right=tuple(right))
    for frame in report["frames"]:
        pairs = frame["active_pairs"] / 1e6
        about = [str(frame["batch"]), f"{frame['voxels_in_all']:,}", f"{pairs:.2f}"]
        for run in frame["runs"]:
            cells = [run["engine"], run["precision"]]
            for clock in clocks:
                found = run[clock]
                each = found["ms_per_million_pairs"]
                cells += [spread_text(found["milliseconds"]), "" if each is None else f"{each:.2f}"]
                cells.append(spread_text(found["speedup"]))
            made.add_row(*about, *cells)
            about = ["", "", ""]
    print_table(made)
    for text in report["skipped"]:
        click.echo(f"left out: {text}")
    click.echo(f"done in {report['seconds']:.1f} s")


def main(arguments: list[str] | None = None) -> int:
    """Run it; 1 after an error, 2 for wrong usage."""
    return run_command(command, "python -m benchmarks growth", arguments)


if __name__ == "__main__":
    show_every_character()
    sys.exit(main())
