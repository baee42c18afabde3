# SPDX-License-Identifier: Apache-2.0
"""The tables of `scn-fx bench`, from its plain data."""

from __future__ import annotations

from typing import Any

import click

from scn_fx.cli.output import print_table, table

__all__ = ["print_left_out", "print_report", "stage_cells"]


def print_report(report: dict[str, Any]) -> None:
    """Print what `scn_fx.bench.job.run_bench` returned."""
    machine, settings = report["machine"], report["settings"]
    click.echo(
        f"{machine['cpu']}, {machine['processors']} processors, load {machine['load'] or 0:.1f}, engine on "
        f"{machine['isa']}; "
        f"peer: {machine['spconv'] or 'no spconv'}, CPU, fp32"
    )
    peaks = [f"{p['kind']} {p['gops']:.0f} GOP/s" for p in report["peaks"] if p["gops"]]
    counts = [f"{p['threads']} thread(s)" for p in report["peaks"] if p["gops"]]
    text = ", ".join(f"{peak} ({count})" for peak, count in zip(peaks, counts, strict=True))
    click.echo(f"measured peak: {text or 'this build cannot measure it'}\n")
    _times(report)
    click.echo(
        f"Medians of {settings['repeat']} rounds, all subjects in turn. × spconv: over spconv with as many "  # noqa: RUF001
        "threads, lowest to highest round in brackets."
    )
    print_left_out(report)
    for text in report["noisy"]:
        click.echo(f"noisy, measure again on an idle machine: {text}")
    _growth(report)
    _layers(report["layers"])
    if "memory" in report:
        _memory(report)
    click.echo(f"done in {report['seconds']:.1f} s")


def print_left_out(report: dict[str, Any]) -> None:
    """A line for each frame or peer that was not measured."""
    for text in report["skipped"]:
        click.echo(f"left out: {text}")


def stage_cells(row: dict[str, Any], time: str) -> tuple[str, ...]:
    """The first columns of a stage: kind, layer, precision, time, millions of multiply-accumulates."""
    macs = f"{row['macs'] / 1e6:.0f}" if row["macs"] else ""
    return row["kind"], row["name"], row["precision"] or "", time, macs


def _times(report: dict[str, Any]) -> None:
    columns = ("frame", "voxels", "Mpairs", "engine", "precision", "threads", "ms", "min to max", "× spconv")  # noqa: RUF001
    made = table("Time of a frame", (*columns, "× 1 thread"), right=("voxels", "Mpairs", "threads", "ms"))  # noqa: RUF001
    for frame in report["frames"]:
        about = (frame["frame"], f"{frame['voxels']:,}", f"{frame['active_pairs'] / 1e6:.2f}")
        for run in frame["runs"]:
            ms = run["milliseconds"]
            made.add_row(
                *about,
                run["engine"],
                run["precision"],
                str(run["threads"]),
                _digits(ms["median"]),
                f"{_digits(ms['min'])} to {_digits(ms['max'])}",
                _ratio(run["speedup"]),
                _ratio(run["scaling"]),
            )
            about = ("", "", "")
    print_table(made)


def _growth(report: dict[str, Any]) -> None:
    rows = report["growth"]
    if not rows:
        return
    title = f"Milliseconds per million active pairs; pairs grow {rows[0]['pairs_times']:.2f} times"
    made = table(title, ("engine", "precision", "threads", *rows[0]["frames"], "time grows"))
    for column in made.columns[2:]:
        column.justify = "right"
    for row in rows:
        costs = [f"{cost:.2f}" for cost in row["ms_per_million_pairs"]]
        made.add_row(
            row["engine"], row["precision"], str(row["threads"]), *costs, f"{row['time_times']:.2f} times"
        )
    print_table(made)


def _layers(found: dict[str, Any]) -> None:
    title = (
        f"{found['frame']} in {found['precision']}, {found['threads']} thread(s): medians of "
        f"{found['runs']} profiles"
    )
    columns = ("stage", "layer", "precision", "ms", "Mmac", "GOP/s", "of peak")
    made = table(title, columns, right=columns[3:])
    for row in found["rows"]:
        made.add_row(
            *stage_cells(row, f"{row['milliseconds']:.3f}"),
            f"{row['gops']:.0f}" if row["gops"] else "",
            f"{row['peak_share']:.0%}" if row["peak_share"] else "",
        )
    print_table(made)
    sums = ", ".join(f"{group} {ms:.2f} ms" for group, ms in found["totals"].items())
    timed = f"; the timed runs took {found['timed']:.2f} ms" if found["timed"] else ""
    click.echo(f"sums: {sums}{timed}\n")


def _memory(report: dict[str, Any]) -> None:
    steps = list(report["memory"][0]["stages"])
    made = table("Resident MB of a process that imports the runtime alone", ("precision", *steps, "peak"))
    for column in made.columns[1:]:
        column.justify = "right"
    for row in report["memory"]:
        sizes = [f"{row['stages'][step]['rss'] / 1e6:.1f}" for step in steps]
        made.add_row(row["precision"], *sizes, f"{row['stages'][steps[-1]]['peak'] / 1e6:.1f}")
    print_table(made)
    for row in report["memory"]:
        last = row["stages"][steps[-1]]
        parts = [f"ONNX file {row['file_bytes'] / 1e6:.1f}", f"input {row['input_bytes'] / 1e6:.1f}"]
        parts += [f"output {row['output_bytes'] / 1e6:.1f}"]
        if row["buffer_bytes"] is not None:
            parts.append(f"engine buffers {_bytes(row['buffer_bytes'])}")
        if "anonymous" in last:
            parts.append(f"resident: {last['anonymous'] / 1e6:.1f} anonymous")
            parts.append(f"{last['file'] / 1e6:.1f} from files")
        click.echo(f"{row['precision']}, {row['threads']} thread(s), MB: {', '.join(parts)}")
    imports = ", ".join(f"`{code}` {ms:.0f} ms" for code, ms in report["imports"].items())
    click.echo(f"imports in a new interpreter: {imports}")


def _bytes(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{name} {_bytes(part)}" for name, part in value.items())
    return f"{value / 1e6:.1f}"


def _ratio(found: dict[str, float] | None) -> str:
    return f"{found['median']:.2f} ({found['min']:.2f} to {found['max']:.2f})" if found else ""


def _digits(ms: float) -> str:
    return f"{ms:.1f}" if ms >= 10 else f"{ms:.3f}"
