# SPDX-License-Identifier: Apache-2.0
"""The tables of `scn-fx bench --device cuda`, from its plain data."""

from __future__ import annotations

from typing import Any

import click

from scn_fx.cli.bench_tables import print_left_out, stage_cells
from scn_fx.cli.output import print_table, table

__all__ = ["print_gpu_report"]


def print_gpu_report(report: dict[str, Any]) -> None:
    """Print what `scn_fx.bench.gpu.job.run_gpu_bench` returned."""
    machine, settings = report["machine"], report["settings"]
    click.echo(
        f"{report['device']['name']}, torch {machine['torch']}, {machine['spconv'] or 'no spconv'}, fp16; "
        f"files {settings['files']}\n"
    )
    _times(report)
    click.echo(
        f"{settings['repeat']} rounds, all subjects in turn, tensors in GPU memory. event: CUDA events "
        "around a single call; wall: a call and waiting for it. Brackets: 10th to 90th percentile."
    )
    print_left_out(report)
    _memory(report["memory"])
    _stages(report["stages"])
    click.echo(f"done in {report['seconds']:.1f} s")


def _times(report: dict[str, Any]) -> None:
    columns = ("frame", "voxels", "engine", "precision", "graph", "event ms", "wall ms")
    made = table("Time of a frame", (*columns, "event × spconv", "wall × spconv"), right=("voxels",))  # noqa: RUF001
    for frame in report["frames"]:
        about = (frame["frame"], f"{frame['voxels']:,}")
        for run in frame["runs"]:
            made.add_row(
                *about,
                run["engine"],
                run["precision"],
                "yes" if run["graph"] else "no",
                _spread(run["event"]["milliseconds"], 4),
                _spread(run["wall"]["milliseconds"], 4),
                _spread(run["event"]["speedup"], 2),
                _spread(run["wall"]["speedup"], 2),
            )
            about = ("", "")
    print_table(made)


def _memory(memory: dict[str, Any]) -> None:
    parts = list(memory["rows"][0]["buffer_bytes"])
    columns = ("precision", "graph", "construction", "with the first frame", "buffers", *parts)
    made = table(f"MB of GPU memory, {memory['frame']}", columns, right=columns[2:])
    for row in memory["rows"]:
        sizes = row["buffer_bytes"]
        values = (row["construction_bytes"], row["first_frame_bytes"], sum(sizes.values()), *sizes.values())
        cells = [f"{value / 1e6:.1f}" for value in values]
        made.add_row(row["precision"], "yes" if row["graph"] else "no", *cells)
    print_table(made)


def _stages(found: dict[str, Any]) -> None:
    limits = any(row["limit"] is not None for row in found["rows"])
    columns = ("stage", "layer", "precision", "µs", "Mmac", *(["limit µs"] if limits else []))
    title = f"{found['frame']} in {found['precision']}: medians of {found['runs']} profiles"
    made = table(title, columns, right=columns[3:])
    for row in found["rows"]:
        limit = [] if not limits else ["" if row["limit"] is None else f"{row['limit']:.2f}"]
        made.add_row(*stage_cells(row, f"{row['microseconds']:.1f}"), *limit)
    print_table(made)
    sums = ", ".join(f"{group} {value:.1f} µs" for group, value in found["totals"].items())
    click.echo(
        f"sums: {sums}. Stages are timed one by one with events, which adds about 1.3 µs to each, and "
        "nothing overlaps: they do not sum up to the time of a frame."
    )


def _spread(found: dict[str, float] | None, digits: int) -> str:
    if not found:
        return ""
    median, low, high = (f"{found[key]:.{digits}f}" for key in ("median", "p10", "p90"))
    return f"{median} ({low} to {high})"
