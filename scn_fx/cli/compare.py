# SPDX-License-Identifier: Apache-2.0
"""`scn-fx compare`: a model against the engine, node by node; or two files with results."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from scn_fx.cli.options import FILE, device_option, grid_option, limit_option, single_option, threads_option
from scn_fx.cli.output import (
    file_size,
    json_option,
    megabytes,
    print_json,
    print_table,
    table,
    working,
)
from scn_fx.cli.picture import check_picture, picture_option
from scn_fx.errors import GridError
from scn_fx.quant.calibration_options import format_option
from scn_fx.quant.console import one_line
from scn_fx.quant.next_command import MODEL_OPTIONS, next_line
from scn_fx.quant.options import checkpoint_options
from scn_fx.quant.settings_option import onnx_of_settings, settings_option, settings_path

if TYPE_CHECKING:
    from torch.fx import GraphModule

    from scn_fx.lidar import NetworkGrid, VoxelGrid
    from scn_fx.runtime import Comparison, Engine, Limits

__all__ = ["command", "given_limits", "limits_options", "print_comparison"]

_Command = TypeVar("_Command", bound=Callable[..., Any])
_MODELS = (".onnx", ".plan")
"""Endings of files that an engine runs."""

_LIMITS = (
    click.option("--identical", is_flag=True, help="Accept equal bits only."),
    click.option("--cosine", type=click.FloatRange(-1, 1), help="Smallest cosine to accept."),
    click.option("--sqnr", type=float, help="Smallest SQNR to accept, in dB."),
    click.option("--max-abs", type=click.FloatRange(0), help="Largest absolute difference to accept."),
    click.option("--allow-zero", is_flag=True, help="Accept values that are zero throughout."),
)


def limits_options(command: _Command) -> _Command:
    """Adds the options of what may differ, see `given_limits`."""
    for option in reversed(_LIMITS):
        command = option(command)
    return command


@click.command(context_settings={"show_default": True})
@click.argument("files", nargs=-1, metavar="[FILE.onnx | REFERENCE RESULT]")
@settings_option("compare")
@click.option("--model", help="The model behind FILE.onnx: a name of the zoo, or package.module:callable.")
@click.option("--cache", type=FILE, help="Its calibration cache; without one the graph is float.")
@checkpoint_options
@grid_option
@click.option("--frames", type=FILE, help="Frames as for calibrate; default: the synthetic one.")
@format_option
@limit_option(1)
@single_option
@device_option
@threads_option
@limits_options
@picture_option
@json_option
@click.pass_context
def command(ctx: click.Context, files: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Compare a model with its ONNX file, or two result files; exit 1 beyond the limits.

    \b
    scn-fx compare scn.onnx --model centerpoint --cache scn.calibration.json
    scn-fx compare golden.npz result.npz --cosine 0.999
    scn-fx compare --settings scn.toml

    Without limits of your own, those of a model follow from the precisions of both sides: equal bits
    wherever the arithmetic is exact. Two result files must have a cosine of 0.99 and 17 dB SQNR, and always
    the same shape and sites; int8 against float differs more: --cosine 0.9. Result files are .npz, .npy or
    .tensor; sparse ones FEATURES.tensor:INDICES.tensor. NaN, infinite and all-zero values always fail.
    """
    from scn_fx.runtime.limits import RESULT_LIMITS

    limits = given_limits(options)
    check_picture(options["picture"])
    if not files and (onnx := onnx_of_settings(ctx)) is not None:
        files = (str(onnx),)
    if len(files) == 1 and files[0].endswith(_MODELS):
        if options["model"] is None:
            raise click.UsageError("An ONNX file is compared with its model: give --model.")
        ok = _compare_model(Path(files[0]), options, limits, as_json)
        if not ok and not as_json:
            click.echo(_next(ctx, options))
    elif len(files) == 2:
        if any(file.endswith(_MODELS) for file in files):
            raise click.UsageError(
                "One ONNX file is compared with its model: scn-fx compare FILE.onnx --model M."
            )
        if settings_path(ctx) is not None:
            raise click.UsageError("--settings goes with one ONNX file, not with two result files.")
        names = ("model", "cache", "checkpoint", "grid", "frames", "point_format", "precision", "threads")
        given = [f"--{name.removeprefix('point_')}" for name in names if options[name]]
        given += ["--model-output"] if options["outputs"] else []
        if given:
            raise click.UsageError(f"{given[0]} goes with one ONNX file, not with two result files.")
        chosen = limits or replace(RESULT_LIMITS, allow_zero=options["allow_zero"])
        ok = _compare_files(files[0], files[1], chosen, as_json, options["picture"])
    else:
        raise click.UsageError(
            "Expected one ONNX file with --model, two result files, or --settings of a file that names onnx "
            "and model."
        )
    if not ok:
        ctx.exit(1)


def _next(ctx: click.Context, options: dict[str, Any]) -> str:
    """A look at where the error comes from; it needs frames."""
    frames = () if options["frames"] else ("--frames", "FRAMES")
    names = (*MODEL_OPTIONS, "cache", "frames", "point_format")
    return next_line(ctx, "sensitivity", *frames, names=names)


def given_limits(options: dict[str, Any]) -> Limits | None:
    """The limits of `limits_options`; None if none of them says any."""
    from scn_fx.runtime import Limits

    given = {"identical": options["identical"], "cosine": options["cosine"], "max_abs": options["max_abs"]}
    given.update(sqnr_db=options["sqnr"])
    if all(value is None or value is False for value in given.values()):  # 0 is a limit
        return None
    return Limits(**given, allow_zero=options["allow_zero"])


def _compare_model(file: Path, options: dict[str, Any], limits: Limits | None, as_json: bool) -> bool:
    from scn_fx.input_grid import network_grid
    from scn_fx.runtime import Engine, compare

    engine = Engine(file, options["device"], precision=options["precision"], threads=options["threads"])
    given = options["grid"]
    if given is not None:
        engine.network_grid.require(given, "--grid")
    with working("capturing the model") as say:
        from scn_fx.cli.models import load_model

        names = ("checkpoint", "checkpoint_prefix", "checkpoint_layout", "outputs", "native", "cache")
        chosen = {name: options[name] for name in names}
        try:
            # A model that does not say its grid is captured for the file's.
            graph = load_model(options["model"], grid=given or engine.grid, **chosen)
        except GridError as error:
            if given is not None or engine.grid is None:
                raise
            raise GridError(
                f"{error} That grid is the one of {file}: compare the model that it was exported from."
            ) from error
        frames = _frames(options, network_grid(graph), engine)
        comparison = compare(
            graph, engine, frames, limits=limits, allow_zero=options["allow_zero"], on_step=say
        )
        if options["picture"] is not None:
            say("drawing")
            again = _frames(options, network_grid(graph), engine)
            title = f"{options['model']} against {file}"
            _draw_model(options["picture"], graph, engine, next(iter(again)), title, options["grid"])
    if as_json:
        print_json({**comparison.to_dict(), **_saved(options["picture"])})
    else:
        print_comparison(comparison, f"{options['model']} against {file}")
        _say_saved(options["picture"])
    return comparison.ok


def _draw_model(
    path: Path, graph: GraphModule, engine: Engine, frame: Any, title: str, grid: VoxelGrid | None
) -> None:
    """Write the picture of the first output on one frame: graph, engine, difference."""
    from scn_fx.cli.picture import compared_panels, map_extent, save_panels
    from scn_fx.runtime.comparison import output_list
    from scn_fx.runtime.reference import Reference, input_tensors

    tensors, features, indices = input_tensors(graph, frame, 0)
    result = output_list(engine(tensors[features].numpy(), tensors[indices].numpy()))[0]
    value = Reference(graph).outputs(tensors, None)[0]
    reference = value.values if value.indices is None else (value.values, value.indices)
    network = engine.network_grid
    panels = compared_panels(reference, result, ("graph", "engine"), network.axes)
    save_panels(path, panels, one_line(title), map_extent(result, network, grid))


def _saved(picture: Path | None) -> dict[str, str]:
    return {} if picture is None else {"picture": str(picture)}


def _say_saved(picture: Path | None) -> None:
    if picture is not None:
        click.echo(f"saved {picture} ({megabytes(file_size(picture))})")


def _frames(options: dict[str, Any], network: NetworkGrid, engine: Engine) -> Any:
    """The frames of the options, for a graph and the engine of its file, whose grids must agree."""
    grid = options["grid"] or engine.grid
    if network.grid is not None:
        engine.network_grid.check_grid(network.grid, "The model is captured for")
    if options["frames"] is None:
        return _synthetic(network if network.grid is not None else engine.network_grid)
    from scn_fx.quant.frame_source import find_frames

    found = find_frames(options["frames"], point_format=options["point_format"], limit=options["limit"])
    return found.for_network(network, grid)


def _synthetic(network: NetworkGrid) -> Iterator[tuple[Any, Any]]:
    """One synthetic frame, made when asked for: first it is seen whether model and file belong together."""
    from scn_fx.cli.arrays import synthetic_frame

    frame = synthetic_frame(network)
    yield frame.features, frame.indices


def print_comparison(comparison: Comparison, title: str) -> None:
    """A row for each node and output, the limits, and one line with the verdict."""
    from scn_fx.runtime.report import COLUMNS, buckets_text, cells, verdict

    made = table(title, COLUMNS, right=COLUMNS[3:8])
    for entry in (*comparison.nodes, *comparison.outputs):
        made.add_row(*cells(entry))
    print_table(made)
    for entry in comparison.outputs:
        if entry.difference is not None and not entry.difference.identical:
            click.echo(f"{entry.name}: |difference| {buckets_text(entry.difference)}")
    click.echo(f"limits: {comparison.limits}")
    click.echo(verdict(comparison))


def _compare_files(reference: str, result: str, limits: Limits, as_json: bool, picture: Path | None) -> bool:
    from scn_fx.cli.arrays import read_result
    from scn_fx.errors import CompareError
    from scn_fx.runtime import align_sites, compare_arrays
    from scn_fx.runtime.limits import RESULT_LIMITS
    from scn_fx.runtime.report import buckets_text

    a, b = read_result(reference), read_result(result)
    if (a.indices is None) != (b.indices is None):
        raise CompareError("One of the two is sparse (features with indices), the other one is not.")
    left, right = a.values, b.values
    if a.indices is not None and b.indices is not None:
        left, right = align_sites((left, a.indices), (right, b.indices), "the two files")
    difference = compare_arrays(left, right, "the two files")
    failures = limits.failures(difference)
    if picture is not None:
        from scn_fx.cli.picture import compared_panels, save_panels

        sides = [side.values if side.indices is None else (side.values, side.indices) for side in (a, b)]
        panels = compared_panels(sides[0], sides[1], ("reference", "result"))
        save_panels(picture, panels, one_line(f"{reference} against {result}"))
    if as_json:
        found = {"ok": not failures, "failures": list(failures), "limits": str(limits)}
        print_json({**found, "difference": difference.to_dict(), **_saved(picture)})
        return not failures
    made = table("", ("", reference, result), right=(reference, result))
    for name, x, y in _sides(left, right):
        made.add_row(name, x, y)
    print_table(made)
    sqnr = "inf" if difference.sum_error == 0.0 else f"{difference.sqnr_db:.2f}"
    click.echo(f"cosine      {difference.cosine:.7f}    SQNR {sqnr} dB")
    click.echo(f"difference  max {difference.max_abs:.6g}, mean {difference.mean_abs:.6g}")
    click.echo(f"            {buckets_text(difference)}")
    equal, nonzero = difference.equal_share, difference.equal_nonzero_share
    click.echo(f"equal       {equal:.3%} of all, {nonzero:.3%} of the non-zero")
    click.echo(f"limits      {limits}")
    click.echo("ok" if not failures else f"FAILED: {'; '.join(failures)}")
    if failures and limits.reason == RESULT_LIMITS.reason:
        click.echo(
            "Are both results of one frame, grid and network? If they are and only their precisions differ "
            "(int8 against float), say what to accept: --cosine 0.9."
        )
    _say_saved(picture)
    return not failures


def _sides(a: Any, b: Any) -> list[tuple[str, str, str]]:
    import numpy as np

    def facts(x: Any) -> tuple[str, ...]:
        wide = x.astype(np.float64)
        if not wide.size:
            return (x.dtype.name, str(list(x.shape)), "", "", "")
        share = np.count_nonzero(wide) / wide.size
        return (
            x.dtype.name,
            str(list(x.shape)),
            f"{wide.min():.6g} … {wide.max():.6g}",
            f"{wide.mean():.6g} ± {wide.std():.6g}",
            f"{share:.2%}",
        )

    names = ("dtype", "shape", "min … max", "mean ± std", "non-zero")
    return list(zip(names, facts(a), facts(b), strict=True))
