# SPDX-License-Identifier: Apache-2.0
"""`python -m benchmarks layer`: single 3x3x3 convolutions below the engine, kernel by kernel."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from benchmarks.entry import run_command
from scn_fx.cli.options import FILE, device_option
from scn_fx.errors import ArgumentError, ScnError
from scn_fx.files.atomic import write_file
from scn_fx.quant.console import show_every_character
from scn_fx.quant.options import Refusal

__all__ = ["command", "main", "measure_layers"]

_KINDS = ("subm", "strided")


@click.command(context_settings={"show_default": True})
@click.option(
    "--frames", type=FILE, help="Frame file, or folder of real frames [default: what SCN_FX_DATA names]."
)
@click.option("--frame", metavar="NAME", help="Which frame [default: the largest].")
@click.option("--level", default=0, type=click.IntRange(0, 6), help="Strided layers before: coarser sites.")
@click.option("--channels", default="16,32,64,128", metavar="C,CxC", help="Channels, or in x out as 5x16.")
@click.option("--kind", "kinds", multiple=True, type=click.Choice(_KINDS), help="Repeatable [default: subm].")
@click.option("--precision", default="int8,fp16,fp32", metavar="P,P", help="Of the products.")
@device_option
@click.option("--threads", metavar="N,N", help="Thread counts of the CPU [default: all processors].")
@click.option("--repeat", default=15, type=click.IntRange(1), help="Runs of each, in three rounds.")
@click.option("--kernel", "kernels", multiple=True, metavar="NAME", help="This kernel only; repeatable.")
@click.option("--every-kernel", is_flag=True, help="All kernels that suit, not the engine's choice alone.")
@click.option("--json", "report_file", type=FILE, metavar="FILE", help="Write the report there as well.")
def command(report_file: Path | None, **options: Any) -> None:
    """Time single convolutions below the engine: one line per layer, kernel and number of threads.

    Sites and kernel maps are those of a frame, features and weights random. Times are those of the product
    and its finish: making kernel maps, packing weights and quantising features are outside.
    """
    try:
        report = measure_layers(**options)
        _show(report)
        if report_file:
            write_file(report_file, json.dumps(report, indent=1))
            click.echo(f"saved {report_file}")
    except ScnError as error:
        raise Refusal(str(error)) from error


def measure_layers(
    *,
    frames: Path | None,
    frame: str | None,
    level: int,
    channels: str,
    kinds: tuple[str, ...],
    precision: str,
    device: str,
    threads: str | None,
    repeat: int,
    kernels: tuple[str, ...],
    every_kernel: bool,
) -> dict[str, Any]:
    """The report, plain data: "frame", "voxels", "level", "sites", "device" and "rows".

    Raises ArgumentError for options that do not fit, and the errors of frames and kernels (`ScnError`).
    """
    from benchmarks.layer.cases import level_of, make_layer, parse_channels
    from benchmarks.layer.run import measure, peaks_of, subjects_of
    from scn_fx.bench.frames import find_frames
    from scn_fx.bench.host import processors
    from scn_fx.bench.settings import CpuSettings, GpuSettings, parse_precisions, parse_threads

    if kernels and every_kernel:
        raise ArgumentError("--kernel names kernels and --every-kernel takes all; give one of them.")
    widths, precisions = parse_channels(channels), parse_precisions(precision)
    counts = parse_threads(threads) if threads else (processors(),)
    if device == "cpu":
        CpuSettings(precisions=precisions, threads=counts)
    else:
        from scn_fx.runtime.cuda import check_device

        check_device(GpuSettings(precisions=precisions, device=device).number)
    chosen = find_frames(frames).select([frame] if frame else [])
    used = max(chosen.frames, key=len)
    sites = level_of(used, level)
    layers = [
        make_layer(sites, kind, p, width)
        for kind in kinds or ("subm",)
        for p in precisions
        for width in widths
    ]
    subjects = subjects_of(layers, device=device, threads=counts, kernels=kernels, every_kernel=every_kernel)
    rows = measure(subjects, repeat, peaks_of(device, counts))
    return {
        "format": 1,
        "frame": used.name,
        "voxels": len(used),
        "level": level,
        "sites": len(sites.sites),
        "device": _device_name(device),
        "rows": [row.to_dict() for row in rows],
    }


def _device_name(device: str) -> str:
    from scn_fx import _core
    from scn_fx.bench.host import cpu_name

    if device == "cpu":
        return f"{cpu_name()}, {_core.cpu_features()['isa']}"
    name = _core.cuda_info()["devices"][int(device.partition(":")[2] or 0)]["name"]
    return str(name)


def _show(report: dict[str, Any]) -> None:
    from scn_fx.cli.output import print_table, table

    click.echo(
        f"{report['device']}; {report['frame']}, {report['voxels']:,} voxels; level {report['level']}: "
        f"{report['sites']:,} sites"
    )
    right = ("sites", "Mpairs", "threads", "ms", "GMAC/s", "of peak")
    columns = ("layer", "precision", "channels", "sites", "Mpairs", "threads", "ms", "min to max", "GMAC/s")
    made = table("3x3x3 convolutions", (*columns, "of peak", "kernel"), right=right)
    for row in report["rows"]:
        ms, share = row["milliseconds"], row["peak_share"]
        made.add_row(
            row["kind"],
            row["precision"],
            f"{row['inputs']} to {row['outputs']}",
            f"{row['rows']:,}",
            f"{row['pairs'] / 1e6:.2f}",
            str(row["threads"] or ""),
            f"{ms['median']:.3f}",
            f"{ms['min']:.3f} to {ms['max']:.3f}",
            f"{row['gmacs']:.1f}",
            "" if share is None else f"{share:.0%}",
            row["kernel"],
        )
    print_table(made)


def main(arguments: list[str] | None = None) -> int:
    """Run it; 1 after an error, 2 for wrong usage."""
    return run_command(command, "python -m benchmarks layer", arguments)


if __name__ == "__main__":
    show_every_character()
    sys.exit(main())
