# SPDX-License-Identifier: Apache-2.0
"""`scn-fx bench`: the engine beside spconv, and where a frame's time goes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scn_fx.cli.options import FILE, Option, device_option, small_option
from scn_fx.cli.output import json_option, print_json, working

if TYPE_CHECKING:
    from scn_fx.bench.common import Say
    from scn_fx.bench.settings import BenchSettings

__all__ = ["bench_options", "command", "make_settings", "measure", "show"]


def bench_options(threads: str | None = None) -> Option:
    """The options of every benchmark; `threads` is the default of `--threads`.

    They give `names`, `device`, `threads`, `precision`, `repeat`, `no_spconv` and `frames`.
    """
    every = " [default: 1 and all processors]" if threads is None else ""
    options: list[Option] = [
        click.option(
            "--frames", type=FILE, help="Folder of real frames [default: the one that SCN_FX_DATA names]."
        ),
        click.option("--frame", "names", multiple=True, metavar="NAME", help="Only this frame; repeatable."),
        device_option,
        click.option("--threads", default=threads, metavar="N,N", help=f"Thread counts{every}."),
        click.option(
            "--precision",
            metavar="P,P",
            help="Precisions of the engine [default: fp32,fp16,int8; GPU: fp16,int8].",
        ),
        click.option(
            "--repeat", type=click.IntRange(1), help="Rounds, after some to warm up [default: 5; GPU: 100]."
        ),
        click.option("--no-spconv", is_flag=True, help="Run the engine alone."),
    ]

    def decorated(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return decorated


@click.command(context_settings={"show_default": True})
@bench_options()
@click.option(
    "--layers", metavar="P", help="Precision of the layer table [default: the last of --precision]."
)
@click.option("--memory", is_flag=True, help="Measure memory and imports too, in new processes.")
@click.option("--workdir", type=FILE, help="Keeps the network's files here for the next time.")
@small_option
@json_option
def command(as_json: bool, **options: Any) -> None:
    """Time the engine beside spconv on the same device, in turn, on identical frames.

    The network is CenterPoint's sparse encoder. Prints medians with their spread, ratios of the same run, the
    growth from the smallest frame to the largest (on the CPU), and a table of the layers.
    """
    settings = make_settings(**options)
    with working("starting") as say:
        report = measure(settings, lambda text: say(f"measuring: {text}"))
    if as_json:
        print_json(report)
    else:
        show(report)


def make_settings(
    *,
    device: str,
    threads: str | None,
    precision: str | None,
    repeat: int | None,
    no_spconv: bool,
    memory: bool,
    workdir: Path | None,
    **common: Any,
) -> BenchSettings:
    """Settings from the words of a command line; None takes the default of the device.

    Threads and `memory` are the CPU's: on a GPU they mean nothing.
    """
    from scn_fx.bench.settings import CpuSettings, GpuSettings, parse_precisions, parse_threads

    common.update(workdir=workdir, spconv=not no_spconv)
    if precision is not None:
        common["precisions"] = parse_precisions(precision)
    if repeat is not None:
        common["repeat"] = repeat
    counts = () if threads is None else parse_threads(threads)
    if device == "cpu":
        return CpuSettings(threads=counts, memory=memory, **common)
    return GpuSettings(device=device, **common)


def measure(settings: BenchSettings, say: Say) -> dict[str, Any]:
    """The report of the benchmark that these settings belong to."""
    from scn_fx.bench.gpu.job import run_gpu_bench
    from scn_fx.bench.job import run_bench
    from scn_fx.bench.settings import CpuSettings, GpuSettings

    if isinstance(settings, GpuSettings):
        return run_gpu_bench(settings, say)
    assert isinstance(settings, CpuSettings)
    return run_bench(settings, say)


def show(report: dict[str, Any]) -> None:
    """Print the tables of a report."""
    from scn_fx.cli.bench_tables import print_report
    from scn_fx.cli.gpu_bench_tables import print_gpu_report

    if "device" in report:
        print_gpu_report(report)
    else:
        print_report(report)
