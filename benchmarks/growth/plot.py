# SPDX-License-Identifier: Apache-2.0
"""The picture of a report: time against voxels, and against batch size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scn_fx.errors import ArgumentError, MissingPackageError
from scn_fx.files.atomic import write_file

__all__ = ["FORMATS", "check_plot", "plot_growth"]

FORMATS = (".svg", ".png")
_COLOURS = {"spconv": "#777777", "fp32": "#1f77b4", "fp16": "#2ca02c", "int8": "#d62728"}


def check_plot(path: Path) -> None:
    """Raise ArgumentError for other kinds of files, MissingPackageError without matplotlib: before work."""
    if path.suffix.lower() not in FORMATS:
        raise ArgumentError(f"--plot writes {' or '.join(FORMATS)} files, got {path.name!r}.")
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingPackageError.of("matplotlib", "plot", "--plot") from error


def plot_growth(report: Mapping[str, Any], path: Path) -> None:
    """Write two panels: single frames by their voxels, batches of equal frames by their number.

    A point is a median, a bar the spread of the rounds. Needs matplotlib, no display; see `check_plot`.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, NullFormatter

    single = [frame for frame in report["frames"] if frame["batch"] == 1]
    each = report["settings"]["batch_voxels"]
    batches = [frame for frame in report["frames"] if frame["voxels"] == each]
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    plain = FuncFormatter(lambda value, _: f"{value:g}")
    for axes, frames, key in ((left, single, "voxels_in_all"), (right, batches, "batch")):
        for (engine, precision), points in _lines(frames, key).items():
            x, ms, low, high = zip(*points, strict=True)
            below = [m - value for m, value in zip(ms, low, strict=True)]
            above = [value - m for m, value in zip(ms, high, strict=True)]
            axes.errorbar(
                x,
                ms,
                yerr=(below, above),
                label=f"{engine} {precision}",
                color=_COLOURS["spconv" if engine == "spconv" else precision],
                linestyle="--" if engine == "spconv" else "-",
                marker="o",
                markersize=4,
                capsize=3,
            )
        axes.set_xscale("log", base=10 if axes is left else 2)
        axes.set_yscale("log")
        axes.set_ylabel("time of a run (ms)")
        axes.yaxis.set_major_formatter(plain)
        axes.grid(True, which="both", alpha=0.25)
        ticks = sorted({frame[key] for frame in frames})
        axes.set_xticks(ticks, [_short(tick) for tick in ticks])
        axes.xaxis.set_minor_formatter(NullFormatter())
    left.set_xlabel("voxels of a frame")
    right.set_xlabel(f"frames of about {_short(each)} voxels in a batch")
    left.legend(fontsize="small")
    machine = report["machine"]
    where = (
        f"{machine['cpu']}, {machine['isa']}, one thread" if report["device"] == "cpu" else report["device"]
    )
    figure.suptitle(f"{report['settings']['network']}; {where}", fontsize="medium")
    kind = path.suffix.lower()[1:]
    metadata = {"Date": None} if kind == "svg" else None  # the same report gives the same file
    write_file(path, lambda file: figure.savefig(file, format=kind, dpi=150, metadata=metadata))


def _lines(
    frames: Sequence[Mapping[str, Any]], key: str
) -> dict[tuple[str, str], list[tuple[float, float, float, float]]]:
    """For each subject x, median, low and high of its frames, ascending."""
    lines: dict[tuple[str, str], list[tuple[float, float, float, float]]] = {}
    for frame in sorted(frames, key=lambda frame: frame[key]):
        for run in frame["runs"]:
            ms = run["wall"]["milliseconds"]
            low, high = (ms[name] for name in (("p10", "p90") if "p10" in ms else ("min", "max")))
            point = (frame[key], ms["median"], low, high)
            lines.setdefault((run["engine"], run["precision"]), []).append(point)
    return lines


def _short(count: int) -> str:
    return f"{count / 1000:.0f}k" if count >= 10_000 else str(count)
