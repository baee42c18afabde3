# SPDX-License-Identifier: Apache-2.0
"""`scn-fx run`: one frame through the engine."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scn_fx.cli.options import FILE, device_option, grid_option, single_option, threads_option
from scn_fx.cli.output import (
    check_output,
    file_size,
    json_option,
    megabytes,
    print_json,
    print_table,
    table,
    working,
)
from scn_fx.cli.picture import check_picture, picture_option
from scn_fx.lidar import VoxelGrid
from scn_fx.quant.calibration_options import format_option
from scn_fx.quant.console import one_line
from scn_fx.quant.next_command import given, next_line
from scn_fx.quant.settings_option import file_or_onnx, settings_option

if TYPE_CHECKING:
    from scn_fx.runtime import Engine

__all__ = ["command"]


@click.command(context_settings={"show_default": True})
@click.argument("file", type=FILE, required=False)
@settings_option("run")
@click.option("--features", type=FILE, help="Features [N, C]: .tensor, .npy or .npz.")
@click.option("--indices", type=FILE, help="Indices int32 [N, 4] (batch, z, y, x); 2D: [N, 3].")
@click.option("--points", type=FILE, help="A raw point file instead, voxelised in the grid of FILE.")
@click.option(
    "--frames", type=FILE, help="Or the first of frames as for calibrate: files or package.module:callable."
)
@grid_option
@format_option
@click.option("--output", "-o", type=FILE, help="Write the result, all outputs: .npz or .tensor.")
@single_option
@device_option
@threads_option
@picture_option
@click.option("--repeat", default=1, type=click.IntRange(1), help="Timed runs, after one to warm up.")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    file: Path | None,
    features: Path | None,
    indices: Path | None,
    points: Path | None,
    frames: Path | None,
    grid: VoxelGrid | None,
    point_format: str | None,
    output: Path | None,
    precision: str | None,
    device: str,
    threads: int | None,
    picture: Path | None,
    repeat: int,
    as_json: bool,
) -> None:
    """Run an ONNX file or a plan, FILE, on a frame, and print the shape of the result and the time.

    The frame is --features with --indices, --points, or the first of --frames; without any of them it is the
    synthetic one.
    """
    from scn_fx.cli.arrays import load_frame, write_results
    from scn_fx.errors import ArgumentError
    from scn_fx.files.onnx_models import read_model
    from scn_fx.runtime import Engine
    from scn_fx.runtime.comparison import output_list

    named, file = file, file_or_onnx(ctx, file)
    if output is not None and output.suffix not in (".npz", ".tensor"):
        raise ArgumentError(f"--output must end in .npz or .tensor, got {str(output)!r}.")
    if output is not None:
        check_output(output)
    check_picture(picture)
    engine = Engine(file, device, precision=precision, threads=threads)
    if frames is not None and not given(ctx, "frames") and (points or features or indices):
        frames = None  # of the settings
    frame = load_frame(features, indices, points, frames, grid, point_format, engine.network_grid)
    with working("running") as say:
        result = engine(frame.features, frame.indices)
        seconds = []
        for number in range(repeat):
            say(f"run {number + 1} of {repeat}")
            began = time.perf_counter()
            result = engine(frame.features, frame.indices)
            seconds.append(time.perf_counter() - began)
    outputs = output_list(result)
    names = read_model(engine.source)["outputs"]
    files = write_results(output, dict(zip(names, outputs, strict=True))) if output is not None else []
    if picture is not None:
        files.append(_draw(picture, engine, f"{file.name}, {frame.name}: {names[0]}", outputs[0], grid))
    facts: dict[str, Any] = {
        "file": str(file),
        "frame": frame.name,
        "voxels": len(frame.indices),
        "outputs": [{"name": n, **_describe(entry)} for n, entry in zip(names, outputs, strict=True)],
        "precision": precision or "as in the file",
        "device": engine.device,
        "threads": engine.threads,
        "isa": engine.isa,
        "runs": repeat,
        "milliseconds": min(seconds) * 1e3,
        "milliseconds_median": sorted(seconds)[repeat // 2] * 1e3,
        "saved": [str(path) for path in files],
    }
    if as_json:
        print_json(facts)
        return
    made = table("", ("", " "))
    made.show_header = False
    made.add_row("frame", f"{facts['frame']}, {facts['voxels']:,} voxels")
    for entry in facts["outputs"]:
        on = f" on {entry['sites']:,} sites" if entry["sites"] is not None else ""
        text = f"{entry['dtype']} {entry['shape']}{on}, largest |value| {entry['largest']:.6g}"
        made.add_row(one_line(entry["name"]), text)
    best, median = facts["milliseconds"], facts["milliseconds_median"]
    spread = f" best, {median:.1f} ms median of {repeat}" if repeat > 1 else ""
    made.add_row("time", f"{best:.1f} ms{spread}")
    where = f"{facts['threads']} threads, {facts['isa']}" if engine.threads else engine.device
    made.add_row("engine", f"{where}, precision {facts['precision']}")
    print_table(made)
    for path in files:
        click.echo(f"saved {path} ({megabytes(file_size(path))})")
    if features is None:  # of arrays alone a page cannot be made
        words: list[object] = [] if named is None else [named]
        words += [] if points is None else ["--frames", points]
        click.echo(next_line(ctx, "report", *words, names=("frames", "point_format", "grid")))


def _draw(path: Path, engine: Engine, title: str, result: Any, grid: VoxelGrid | None) -> Path:
    """Write the picture of one output; returns the file."""
    from scn_fx.cli.bev import bev_image
    from scn_fx.cli.picture import Panel, map_extent, save_panels

    network = engine.network_grid
    precision = engine.precision or "precisions of the file"
    panel = Panel(precision, bev_image(result, network.axes))
    save_panels(path, [panel], one_line(title), map_extent(result, network, grid))
    return path


def _describe(entry: Any) -> dict[str, Any]:
    values, sites = (entry[0], len(entry[1])) if isinstance(entry, tuple) else (entry, None)
    largest = float(abs(values.astype("float32")).max()) if values.size else 0.0
    shape = [int(n) for n in values.shape]
    return {"dtype": str(values.dtype), "shape": shape, "sites": sites, "largest": largest}
