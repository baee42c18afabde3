# SPDX-License-Identifier: Apache-2.0
"""`scn-fx sensitivity`: what each layer alone costs in int8."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scn_fx.cli.options import FILE, frames_option, grid_option, limit_option
from scn_fx.cli.output import check_output, json_option, print_json, print_table, table, working
from scn_fx.errors import MissingPackageError
from scn_fx.quant.calibration_options import format_option, quiet_option
from scn_fx.quant.options import checkpoint_options
from scn_fx.quant.settings_option import settings_option

if TYPE_CHECKING:
    from scn_fx.quant.layer_sensitivity import SensitivityReport

__all__ = ["command"]


@click.command(context_settings={"show_default": True})
@click.argument("network", required=False, metavar="MODEL|FILE.onnx")
@click.option("--model", help="The same as MODEL: a name of the zoo, or package.module:callable.")
@click.option(
    "--cache", type=FILE, help="Calibration cache of the model; without one it is calibrated on the frames."
)
@settings_option("sensitivity")
@checkpoint_options
@grid_option
@frames_option
@format_option
@limit_option(16)
@click.option(
    "--layer", "layers", multiple=True, metavar="PATTERN", help="Only layers of this name; repeatable."
)
@click.option(
    "--precision", default="int8", type=click.Choice(["int8", "fp16"]), help="What is tried on each layer."
)
@click.option("--plot", type=FILE, help="Write a bar chart (PNG); needs matplotlib.")
@quiet_option
@json_option
def command(
    network: str | None,
    model: str | None,
    frames: Path,
    point_format: str | None,
    limit: int,
    layers: tuple[str, ...],
    precision: str,
    plot: Path | None,
    quiet: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Rank the layers of a network by what each alone costs in int8, all others in float32.

    \b
    scn-fx sensitivity centerpoint --cache scn.calibration.json --frames sweeps/ --plot layers.png
    scn-fx sensitivity scn.onnx --frames sweeps/

    The cost is the error at the network's outputs as SQNR in dB: the lower, the worse.
    """
    from scn_fx.cli.network_option import frames_of, named_network, network_graph

    name = named_network(network, model)
    if plot is not None:
        check_output(plot, "--plot")
        if find_spec("matplotlib") is None:
            raise MissingPackageError.of("matplotlib", "plot", "--plot")
    with working("loading the network"):
        graph = network_graph(name, options)
    chosen = frames_of(frames, graph, options["grid"], point_format, limit)
    bar = not quiet
    if precision == "int8":
        _calibrate(graph, chosen, bar)
    from scn_fx.quant import sensitivity

    report = sensitivity(graph, chosen, layers=layers or None, precision=precision, progress=bar)
    if plot is not None:
        from scn_fx.cli.sensitivity_plot import save_plot

        save_plot(plot, report, name)
    if as_json:
        print_json({"network": name, "plot": None if plot is None else str(plot), **report.to_dict()})
        return
    _print(report, name)
    if plot is not None:
        click.echo(f"saved {plot}")


def _calibrate(graph: Any, frames: Any, progress: bool | None) -> None:
    """Find ranges for a graph that has none, and say so."""
    from scn_fx.quant import calibrate
    from scn_fx.quant.ranges import quantizable, read_ranges

    if any(read_ranges(layer) is not None for layer in quantizable(graph)):
        return
    click.echo("No ranges: calibrating on the same frames first.", err=True)
    calibrate(graph, frames, progress=progress)


def _print(report: SensitivityReport, name: str) -> None:
    columns = ("layer", "kind", "SQNR dB", "share of noise")
    made = table(f"{name}: each layer alone in {report.precision}", columns, right=columns[2:])
    total = sum(row.noise for row in report.layers)
    for row in report.layers:
        share = f"{row.noise / total:.1%}" if total else ""
        made.add_row(row.name, row.kind, f"{row.sqnr_db:.2f}", share)
    made.add_row("all together", "", f"{report.together_sqnr_db:.2f}", "")
    print_table(made)
    for layer, reason in report.left_out.items():
        click.echo(f"left out {layer}: {reason}")
    click.echo(f"{report.frames} frames, {report.seconds:.1f} s")
