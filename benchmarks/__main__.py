# SPDX-License-Identifier: Apache-2.0
"""`python -m benchmarks`: everything that can be measured, the tables, and which goals are reached.

`scn-fx bench` measures the same with fewer words; this driver adds the goals and keeps the report.
`python -m benchmarks layer` times single layers kernel by kernel, see benchmarks.layer; `python -m benchmarks
soak` runs many frames, see benchmarks.soak; `python -m benchmarks accuracy` says what int8 costs on trained
networks, see benchmarks.accuracy; `python -m benchmarks models` says which networks pass every stage, see
benchmarks.models; `python -m benchmarks speed` times other networks beside spconv, see benchmarks.speed;
`python -m benchmarks growth` times denser and denser frames and batches, see benchmarks.growth; `python -m
benchmarks points` times raw points to the map beside spconv's generator, see benchmarks.points.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from benchmarks.entry import run_command
from benchmarks.goals import check_goals
from benchmarks.gpu_goals import check_gpu_goals
from scn_fx.cli.bench import bench_options, make_settings, measure, show
from scn_fx.cli.options import FILE, small_option
from scn_fx.errors import ScnError
from scn_fx.files.atomic import write_file
from scn_fx.quant.console import show_every_character
from scn_fx.quant.options import Refusal

_MORE = ("layer", "soak", "accuracy", "models", "speed", "growth", "points")
"""Commands of their own, each a folder here."""


@click.command(context_settings={"show_default": True})
@bench_options(threads="1,2")
@click.option("--no-memory", is_flag=True, help="Leave out memory and imports.")
@small_option
@click.option("--workdir", type=FILE, default="build/benchmarks", help="Keeps the network's files here.")
@click.option("--json", "report_file", type=FILE, metavar="FILE", help="Write the report there as well.")
@click.pass_context
def command(ctx: click.Context, no_memory: bool, report_file: Path | None, **options: Any) -> None:
    """Everything that can be measured, the tables, and which goals are reached: exit 1 if one is missed.

    `python -m benchmarks layer`, `soak`, `accuracy`, `models`, `speed`, `growth` and `points` are more,
    each with its own --help.
    """
    try:
        settings = make_settings(memory=not no_memory, **options)
        report = measure(settings, lambda text: print(f"measuring: {text}", file=sys.stderr))
        goals = check_gpu_goals(report) if "device" in report else check_goals(report)
        report["goals"] = [vars(goal) for goal in goals]
        show(report)
        for goal in goals:
            verdict = {True: "reached", False: "MISSED", None: "not measured"}[goal.reached]
            print(f"{verdict:>12}  {goal.text}: wanted {goal.wanted}, found {goal.found or 'nothing'}")
        if report_file:
            write_file(report_file, json.dumps(report, indent=1))
            print(f"saved {report_file}")
    except ScnError as error:
        raise Refusal(str(error)) from error
    ctx.exit(int(any(goal.reached is False for goal in goals)))


def main(arguments: list[str] | None = None) -> int:
    """Run it; the exit code is 0 if no goal is missed, 1 if one is or on an error, 2 for wrong usage."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments and arguments[0] in _MORE:  # imported alone: some need torch, spconv or the tests' oracle
        more = import_module(f"benchmarks.{arguments[0]}.__main__")
        return int(more.main(arguments[1:]))
    return run_command(command, "python -m benchmarks", arguments)


if __name__ == "__main__":
    show_every_character()
    sys.exit(main())
