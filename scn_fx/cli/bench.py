# SPDX-License-Identifier: Apache-2.0
"""`scn-fx bench`: the engine beside spconv's CPU build, and where a frame's time goes."""

from __future__ import annotations

from pathlib import Path

import click

from scn_fx.cli.output import json_option, print_json, working

__all__ = ["command"]

_FOLDER = click.Path(path_type=Path)


@click.command(context_settings={"show_default": True})
@click.option(
    "--frames", type=_FOLDER, help="Folder of real frames [default: the one that SCN_FX_DATA names]."
)
@click.option("--frame", "names", multiple=True, metavar="NAME", help="Only this frame; repeatable.")
@click.option("--threads", metavar="N,N", help="Thread counts [default: 1 and all processors].")
@click.option("--precision", default="fp32,fp16,int8", metavar="P,P", help="Precisions of the engine.")
@click.option("--repeat", default=5, type=click.IntRange(1), help="Rounds, after one to warm up.")
@click.option("--no-spconv", is_flag=True, help="Run the engine alone.")
@click.option(
    "--layers", metavar="P", help="Precision of the layer table [default: the last of --precision]."
)
@click.option("--memory", is_flag=True, help="Measure memory and imports too, in new processes.")
@click.option("--workdir", type=_FOLDER, help="Keeps the network's files here for the next time.")
@click.option("--small", is_flag=True, help="A narrow network on a small grid, for a quick try.")
@json_option
def command(
    frames: Path | None,
    names: tuple[str, ...],
    threads: str | None,
    precision: str,
    repeat: int,
    no_spconv: bool,
    layers: str | None,
    memory: bool,
    workdir: Path | None,
    small: bool,
    as_json: bool,
) -> None:
    """Time the engine beside spconv's CPU build, in turn, on identical frames.

    The network is CenterPoint's sparse encoder. Prints medians with their spread, ratios of the same run, the
    growth from the smallest frame to the largest, and a table of the layers.
    """
    from scn_fx.bench.job import BenchSettings, parse_precisions, parse_threads, run_bench
    from scn_fx.cli.bench_tables import print_report

    settings = BenchSettings(
        frames=frames,
        names=names,
        threads=parse_threads(threads) if threads is not None else (),
        precisions=parse_precisions(precision),
        repeat=repeat,
        spconv=not no_spconv,
        layers=layers,
        memory=memory,
        workdir=workdir,
        small=small,
    )
    with working("starting") as say:
        report = run_bench(settings, lambda text: say(f"measuring: {text}"))
    if as_json:
        print_json(report)
    else:
        print_report(report)
