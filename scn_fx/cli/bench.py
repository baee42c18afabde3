# SPDX-License-Identifier: Apache-2.0
"""`scn-fx bench`: the engine beside spconv, and where a frame's time goes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scn_fx.cli.output import json_option, print_json, working

if TYPE_CHECKING:
    from scn_fx.bench.job import BenchSettings

__all__ = ["command", "make_settings", "measure", "show"]

_FOLDER = click.Path(path_type=Path)


@click.command(context_settings={"show_default": True})
@click.option(
    "--frames", type=_FOLDER, help="Folder of real frames [default: the one that SCN_FX_DATA names]."
)
@click.option("--frame", "names", multiple=True, metavar="NAME", help="Only this frame; repeatable.")
@click.option("--device", default="cpu", help="Where to run: cpu, cuda or cuda:N.")
@click.option("--threads", metavar="N,N", help="Thread counts [default: 1 and all processors].")
@click.option(
    "--precision", metavar="P,P", help="Precisions of the engine [default: fp32,fp16,int8; GPU: fp16,int8]."
)
@click.option(
    "--repeat", type=click.IntRange(1), help="Rounds, after some to warm up [default: 5; GPU: 100]."
)
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
    device: str,
    threads: str | None,
    precision: str | None,
    repeat: int | None,
    no_spconv: bool,
    layers: str | None,
    memory: bool,
    workdir: Path | None,
    small: bool,
    as_json: bool,
) -> None:
    """Time the engine beside spconv on the same device, in turn, on identical frames.

    The network is CenterPoint's sparse encoder. Prints medians with their spread, ratios of the same run, the
    growth from the smallest frame to the largest (on the CPU), and a table of the layers.
    """
    settings = make_settings(
        device,
        threads,
        precision,
        repeat,
        frames=frames,
        names=names,
        spconv=not no_spconv,
        layers=layers,
        memory=memory,
        workdir=workdir,
        small=small,
    )
    with working("starting") as say:
        report = measure(settings, lambda text: say(f"measuring: {text}"))
    if as_json:
        print_json(report)
    else:
        show(report)


def make_settings(
    device: str, threads: str | None, precision: str | None, repeat: int | None, **common: Any
) -> BenchSettings:
    """Settings from the words of a command line; None takes the default of the device."""
    from scn_fx.bench.gpu.job import GpuSettings
    from scn_fx.bench.job import BenchSettings, parse_precisions, parse_threads

    if threads is not None:
        common["threads"] = parse_threads(threads)
    if precision is not None:
        common["precisions"] = parse_precisions(precision)
    if repeat is not None:
        common["repeat"] = repeat
    return BenchSettings(**common) if device == "cpu" else GpuSettings(device=device, **common)


def measure(settings: BenchSettings, say: Callable[[str], None]) -> dict[str, Any]:
    """The report of the benchmark that these settings belong to."""
    from scn_fx.bench.gpu.job import GpuSettings, run_gpu_bench
    from scn_fx.bench.job import run_bench

    return run_gpu_bench(settings, say) if isinstance(settings, GpuSettings) else run_bench(settings, say)


def show(report: dict[str, Any]) -> None:
    """Print the tables of a report."""
    from scn_fx.cli.bench_tables import print_report
    from scn_fx.cli.gpu_bench_tables import print_gpu_report

    if "device" in report:
        print_gpu_report(report)
    else:
        print_report(report)
