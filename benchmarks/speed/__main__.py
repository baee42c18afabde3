# SPDX-License-Identifier: Apache-2.0
"""`python -m benchmarks speed`: a U-Net and a pillar encoder in int8, beside spconv on the same device."""

from __future__ import annotations

import json
import os
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

__all__ = ["command", "main", "measure_speed"]

_NAMES = ("SpUNet", "PillarNetEncoder")
_VOXELS, _SMALL_VOXELS = 80_000, 1000
_ROUNDS = {"cpu": 5, "cuda": 100}


@click.command(context_settings={"show_default": True})
@click.option("--only", multiple=True, type=click.Choice(_NAMES), help="One network; repeatable.")
@click.option(
    "--frames", type=FILE, help="Folder of real frames [default: what SCN_FX_DATA names, or --voxels]."
)
@click.option("--frame", metavar="NAME", help="Which of them [default: the largest].")
@click.option(
    "--voxels",
    type=click.IntRange(2),
    help=f"A synthetic frame of so many in the network's own grid [default: {_VOXELS}].",
)
@device_option
@click.option(
    "--repeat", type=click.IntRange(1), help="Rounds, after some to warm up [default: 5; GPU: 100]."
)
@small_option
@click.option("--json", "report_file", type=FILE, metavar="FILE", help="Write the report there as well.")
@click.pass_context
def command(ctx: click.Context, report_file: Path | None, **options: Any) -> None:
    """Time SpUNet and PillarNet's backbone in int8 beside spconv, in turn: exit 1 if a goal is missed.

    spconv runs as it is ("eager") and with BatchNorm folded into its weights ("folded"), on the CPU in fp32
    and, as the engine beside it, on one thread; on a GPU in fp16. A U-Net runs from files of both dialects:
    its concatenations as sums of convolutions, and as they are.
    """
    try:
        report = measure_speed(**options)
        _show(report)
        if report_file:
            write_file(report_file, json.dumps(report, indent=1))
            click.echo(f"saved {report_file}")
    except ScnError as error:
        raise Refusal(str(error)) from error
    ctx.exit(int(any(goal["reached"] is False for goal in report["goals"])))


def measure_speed(
    *,
    only: tuple[str, ...],
    frames: Path | None,
    frame: str | None,
    voxels: int | None,
    device: str,
    repeat: int | None,
    small: bool,
) -> dict[str, Any]:
    """The report, plain data. ArgumentError for options that do not fit, and the errors of `run_speed`."""
    from benchmarks.speed.cases import NETWORKS
    from benchmarks.speed.run import run_speed
    from scn_fx.bench.frames import find_frames
    from scn_fx.bench.settings import GpuSettings
    from scn_fx.errors import ArgumentError
    from scn_fx.lidar import DATA_VARIABLE

    real = frames is not None or frame is not None
    if real and (small or voxels):
        raise ArgumentError("--frames and --frame take real frames, --small and --voxels make one; give one.")
    used = None
    if real or (os.environ.get(DATA_VARIABLE) and not (small or voxels)):
        used = max(find_frames(frames).select([frame] if frame else []).frames, key=len)
    kind = "cpu" if device == "cpu" else "cuda"
    return run_speed(
        [network for network in NETWORKS if not only or network.name in only],
        used,
        voxels=voxels or (_SMALL_VOXELS if small else _VOXELS),
        device=kind,
        number=0 if kind == "cpu" else GpuSettings(device=device).number,
        repeat=repeat or _ROUNDS[kind],
        small=small,
        say=lambda text: print(f"measuring: {text}", file=sys.stderr, flush=True),
    )


def _show(report: dict[str, Any]) -> None:
    from scn_fx.cli.output import print_table, table

    machine = report["machine"]
    load = machine["load"]
    where = (
        f"{machine['cpu']}, {machine['isa']}, one thread" if report["device"] == "cpu" else report["device"]
    )
    click.echo(
        f"{where}; torch {machine['torch']}, {machine['spconv'] or 'no spconv'}"
        f"{'' if load is None else f'; load before: {load:.1f}'}"
    )
    clocks = ("wall",) if report["device"] == "cpu" else ("event", "wall")
    columns = ["network", "frame", "sites", "engine", "as", "precision", "graph"]
    for clock in clocks:
        columns += [f"{clock} ms", f"{clock} × eager", f"{clock} × folded"]  # noqa: RUF001
    made = table("Time of a frame", columns, right=("sites",))
    for network in report["networks"]:
        about = [network["network"], network["frame"], f"{network['sites']:,}"]
        for row in network["runs"]:
            cells = [row["engine"], row["variant"], row["precision"], "yes" if row["graph"] else "no"]
            for clock in clocks:
                over = row[clock]["speedup"]
                cells += [spread_text(row[clock]["milliseconds"]), spread_text(over.get("eager"))]
                cells.append(spread_text(over.get("folded")))
            made.add_row(*about, *cells)
            about = ["", "", ""]
    print_table(made)
    for network in report["networks"]:
        for dialect, decibels in network["agreement"].items():
            click.echo(f"{network['network']} as {dialect}, in fp32: {decibels:.0f} dB from spconv eager")
    for text in report["skipped"]:
        click.echo(f"left out: {text}")
    for goal in report["goals"]:
        verdict = {True: "reached", False: "MISSED", None: "not measured"}[goal["reached"]]
        click.echo(
            f"{verdict:>12}  {goal['text']}: wanted {goal['wanted']}, found {goal['found'] or 'nothing'}"
        )
    click.echo(f"done in {report['seconds']:.1f} s")


def main(arguments: list[str] | None = None) -> int:
    """Run it; 1 if a goal is missed or after an error, 2 for wrong usage."""
    return run_command(command, "python -m benchmarks speed", arguments)


if __name__ == "__main__":
    show_every_character()
    sys.exit(main())
