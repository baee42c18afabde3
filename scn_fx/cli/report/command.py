# SPDX-License-Identifier: Apache-2.0
"""`scn-fx report`: an ONNX file on frames, as one HTML page."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from scn_fx.cli.options import FILE, device_option, grid_option, limit_option, threads_option
from scn_fx.cli.output import check_output, file_size, json_option, megabytes, print_json, working
from scn_fx.errors import ArgumentError, MissingPackageError, ScnError
from scn_fx.lidar import VoxelGrid
from scn_fx.quant.calibration_options import format_option, quiet_option
from scn_fx.quant.settings_option import file_or_onnx, settings_option

if TYPE_CHECKING:
    from scn_fx.cli.picture import Extent, Panel
    from scn_fx.cli.report.measure import FrameOutputs, Measured
    from scn_fx.detection import Detector
    from scn_fx.quant.layer_sensitivity import SensitivityReport
    from scn_fx.runtime import Engine

__all__ = ["command"]


@click.command(context_settings={"show_default": True})
@click.argument("file", type=FILE, required=False)
@settings_option("report")
@click.option(
    "--frames",
    type=FILE,
    help="Frames, as for calibrate: files or package.module:callable; default: synthetic.",
)
@grid_option
@format_option
@limit_option(4)
@click.option("--output", "-o", default="report.html", type=FILE, help="The page to write.")
@click.option(
    "--sensitivity/--no-sensitivity", default=True, help="What each layer alone costs; needs torch and onnx."
)
@click.option(
    "--detector",
    metavar="demo|FILE",
    help="Draw the boxes of this detector's head: the demo's, or a file of save_detector; needs torch.",
)
@device_option
@threads_option
@click.option("--repeat", default=5, type=click.IntRange(1), help="Timed runs, after one to warm up.")
@quiet_option
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    file: Path | None,
    frames: Path | None,
    grid: VoxelGrid | None,
    point_format: str | None,
    limit: int,
    output: Path,
    sensitivity: bool,
    detector: str | None,
    device: str,
    threads: int | None,
    repeat: int,
    quiet: bool,
    as_json: bool,
) -> None:
    """Show an ONNX file on frames as one HTML page.

    \b
    scn-fx report scn.onnx --frames sweeps/ -o report.html

    The graph, ranges against the values that they are for, SQNR and time of each layer, sensitivity, pictures
    of the output in float32 and in the file's precisions. The reference is the same file in float32. The page
    holds everything itself: no script, nothing to fetch.
    """
    file = file_or_onnx(ctx, file)
    check_output(output)
    if find_spec("matplotlib") is None:
        raise MissingPackageError.of("matplotlib", "plot", "scn-fx report")
    from scn_fx.cli.env import environment
    from scn_fx.cli.picture import map_extent
    from scn_fx.cli.report.measure import measure
    from scn_fx.cli.report.page import Contents, page
    from scn_fx.files.atomic import write_file
    from scn_fx.files.onnx_models import plan_refusal, read_model
    from scn_fx.runtime import Engine

    engine = Engine(file, device, threads=threads)
    if read_model(engine.source)["plan"]:
        raise plan_refusal(file)
    single = Engine(file, device, threads=threads, precision="fp32")
    drawn = None if detector is None else _detector(detector, grid or engine.grid)
    chosen, names = _frames(engine, frames, grid, point_format, limit)
    with working("running") as say:
        measured = measure(engine, single, chosen, repeat, say)
        extent = map_extent(measured.first.result[0], engine.network_grid, grid)
        panels = _panels(measured.first, engine, drawn, engine.grid or grid, extent)
    costs = _sensitivity(file, chosen, measured, None if not quiet else False) if sensitivity else _NOT_ASKED
    where = f"{engine.threads} threads, {engine.isa}" if engine.threads else engine.device
    contents = Contents(
        file=str(file),
        size=megabytes(file_size(file)),
        frames=names,
        engine=where,
        measured=measured,
        sensitivity=costs,
        panels=panels,
        extent=extent,
        environment=environment(),
    )
    html = page(contents).encode("utf-8", "backslashreplace")
    write_file(output, lambda stream: stream.write(html))
    if as_json:
        print_json(_facts(contents, output))
        return
    for name, difference in measured.outputs.items():
        click.echo(
            f"{name}: cosine {difference.cosine:.5f}, SQNR {difference.sqnr_db:.1f} dB against float32"
        )
    if isinstance(costs, str) and sensitivity:
        click.echo(costs)
    click.echo(f"saved {output} ({megabytes(file_size(output))}): open it in a browser")


_NOT_ASKED = "Not measured: --no-sensitivity."


def _frames(
    engine: Engine, path: Path | None, grid: VoxelGrid | None, point_format: str | None, limit: int
) -> tuple[Any, tuple[str, ...]]:
    """Frames that can be read more than once, and their names."""
    if path is None:
        from scn_fx.cli.arrays import synthetic_frame

        if point_format is not None:
            raise ArgumentError("--format is that of point files: give --frames as well, or leave it out.")
        if grid is not None:
            engine.network_grid.require(grid, "--grid")
        frame = synthetic_frame(engine.network_grid)
        return [(frame.features, frame.indices)], (frame.name,)
    from scn_fx.quant.frame_files import FrameFiles
    from scn_fx.quant.frame_source import find_frames

    found = find_frames(path, point_format=point_format, limit=limit)
    chosen = found.for_network(engine.network_grid, grid)
    if isinstance(found, FrameFiles):
        return chosen, tuple(each[0].name for each in found.files)
    frames = [tuple(np.asarray(array) for array in frame[:2]) for frame in chosen]
    return frames, tuple(f"{path}, frame {number}" for number in range(len(frames)))


def _detector(name: str, grid: VoxelGrid | None) -> Detector:
    from scn_fx.detection import load_detector, trained_detector

    if grid is None:
        raise ArgumentError(
            "--detector: boxes are in metres, and the file records no voxel grid. Give its grid with --grid."
        )
    return trained_detector() if name == "demo" else load_detector(name)


def _panels(
    frame: FrameOutputs,
    engine: Engine,
    detector: Detector | None,
    grid: VoxelGrid | None,
    extent: Extent | None,
) -> list[Panel] | str:
    """Panels of the first output with boxes where there is a detector; or why there are none."""
    from dataclasses import replace

    from scn_fx.cli.picture import SURE, compared_panels

    reference, result = frame.reference[0], frame.result[0]
    try:
        panels = compared_panels(
            reference, result, ("float32", "precisions of the file"), engine.network_grid.axes
        )
    except ArgumentError as error:
        if detector is not None:
            raise
        return str(error)
    if detector is None or grid is None:
        return panels
    if extent is None:
        shape = "sparse features" if isinstance(result, tuple) else f"a map {list(result.shape)}"
        raise ArgumentError(
            f"--detector: boxes are drawn over a dense map [1, C, y, x], and the first output is {shape} on "
            f"indices in the order {engine.network_grid.axes}. Leave --detector out."
        )
    from scn_fx.detection import detect

    def boxes(made: Any) -> Any:
        found = detect(lambda *_: made, detector.head, frame.features, frame.indices, grid=grid)
        return found[found.score >= SURE]

    return [replace(panels[0], boxes=boxes(reference)), replace(panels[1], boxes=boxes(result)), panels[2]]


def _sensitivity(
    file: Path, frames: Any, measured: Measured, progress: bool | None
) -> SensitivityReport | str:
    """`quant.sensitivity` of the file's layers that have ranges, or why there is none."""
    missing = [package for package in ("torch", "onnx") if find_spec(package) is None]
    if missing:
        return f"Not measured: {MissingPackageError.of(missing[0], 'export', 'The sensitivity of layers')}"
    if not any(layer.ranges for layer in measured.layers):
        return "Not measured: the file has no int8 ranges. Calibrate it first, see scn-fx retrofit."
    from glob import escape

    from scn_fx.quant import sensitivity
    from scn_fx.quant.ranges import quantizable, read_ranges
    from scn_fx.runtime.file_graph import file_graph

    try:
        graph = file_graph(file).graph
        ranged = [escape(layer.name) for layer in quantizable(graph) if read_ranges(layer) is not None]
        return sensitivity(graph, frames, layers=ranged, progress=progress)
    except ScnError as error:  # the rest of the report is there, and worth its page
        return f"Not measured: {error}"


def _facts(contents: Any, output: Path) -> dict[str, Any]:
    """Plain data of a report."""
    measured, costs = contents.measured, contents.sensitivity
    return {
        "file": contents.file,
        "saved": str(output),
        "frames": list(contents.frames),
        "voxels": list(measured.voxels),
        "engine": contents.engine,
        "outputs": {name: difference.to_dict() for name, difference in measured.outputs.items()},
        "layers": [layer.to_dict() for layer in measured.layers],
        "milliseconds": measured.totals,
        "milliseconds_fp32": measured.float_totals,
        "stages": [
            {"kind": stage.kind, "name": stage.name, "milliseconds": seconds * 1e3}
            for stage, seconds in measured.stages
        ],
        "sensitivity": costs if isinstance(costs, str) else costs.to_dict(),
        "environment": contents.environment,
    }
