# SPDX-License-Identifier: Apache-2.0
"""`python -m benchmarks`: everything that can be measured, the tables, and which goals are reached.

`scn-fx bench` measures the same with fewer words; this driver adds the goals and keeps the report.
`python -m benchmarks soak` runs many frames instead, see benchmarks.soak; `python -m benchmarks accuracy`
says what int8 costs on trained networks, see benchmarks.accuracy.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from benchmarks.goals import check_goals
from benchmarks.gpu_goals import check_gpu_goals
from quant.console import show_every_character
from scn_fx.cli.bench import make_settings, measure, show
from scn_fx.errors import ScnError, WriteError
from scn_fx.files.atomic import write_file


def main(arguments: list[str] | None = None) -> int:
    """Run it; the exit code is 0 if no goal is missed, 1 if one is or on an error."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["soak"]:
        from benchmarks.soak.__main__ import main as soak  # the tests' oracle is needed there alone

        return soak(arguments[1:])
    if arguments[:1] == ["accuracy"]:
        from benchmarks.accuracy.__main__ import main as accuracy  # needs torch and spconv

        return accuracy(arguments[1:])
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.partition("\n")[0])
    parser.add_argument("--frames", type=Path, help="folder of real frames (default: SCN_FX_DATA)")
    parser.add_argument("--frame", action="append", default=[], help="only this frame; repeatable")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: cpu)")
    parser.add_argument("--threads", default="1,2", help="thread counts (default: 1,2)")
    parser.add_argument("--precision", help="precisions (default: fp32,fp16,int8; GPU: fp16,int8)")
    parser.add_argument("--repeat", type=int, help="rounds (default: 5; GPU: 100)")
    parser.add_argument("--no-spconv", action="store_true", help="run the engine alone")
    parser.add_argument("--no-memory", action="store_true", help="leave out memory and imports")
    parser.add_argument("--small", action="store_true", help="a narrow network, for a quick try")
    parser.add_argument("--workdir", type=Path, default=Path("build/benchmarks"), help="keeps files here")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there as well")
    given = parser.parse_args(arguments)
    try:
        settings = make_settings(
            given.device,
            given.threads,
            given.precision,
            given.repeat,
            frames=given.frames,
            names=tuple(given.frame),
            spconv=not given.no_spconv,
            memory=not given.no_memory,
            workdir=given.workdir,
            small=given.small,
        )
        report = measure(settings, lambda text: print(f"measuring: {text}", file=sys.stderr))
    except ScnError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    goals = check_gpu_goals(report) if "device" in report else check_goals(report)
    report["goals"] = [vars(goal) for goal in goals]
    show(report)
    for goal in goals:
        verdict = {True: "reached", False: "MISSED", None: "not measured"}[goal.reached]
        print(f"{verdict:>12}  {goal.text}: wanted {goal.wanted}, found {goal.found or 'nothing'}")
    if given.json:
        try:
            write_file(given.json, json.dumps(report, indent=1))
        except WriteError as error:
            print(f"Error: {error}", file=sys.stderr)
            return 1
        print(f"saved {given.json}")
    return int(any(goal.reached is False for goal in goals))


if __name__ == "__main__":
    show_every_character()
    sys.exit(main())
