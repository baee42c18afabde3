# SPDX-License-Identifier: Apache-2.0
"""`python -m benchmarks soak`: random frames of any size through one engine of each precision.

Every 1,000 frames the bits are compared with those of a new engine, in int8 with the oracle's too. Wrong
frames in between must raise the error that fits. Memory may not grow: benchmarks.soak.memory.Watch has the
rule.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from benchmarks.soak.run import PRECISIONS, Outcome, soak
from scn_fx.errors import ScnError
from scn_fx.files.atomic import write_file

HEAD = "precision   device     frames        sites  refused  compared  growth KiB  GPU KiB  seconds  wrong"


def _line(o: Outcome) -> str:
    gpu = "-" if o.gpu_growth is None else f"{o.gpu_growth / 1024:.0f}"
    return (
        f"{o.precision:9} {o.device:>8} {o.frames:10,} {o.sites:12,} {sum(o.refused.values()):8,} "
        f"{o.compared:9,} {o.growth / 1024:11,.0f} {gpu:>8} {o.seconds:8.0f} {len(o.wrong):6}"
    )


def main(arguments: list[str] | None = None) -> int:
    """Run it; the exit code is 0 if nothing was wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks soak", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--frames", type=int, default=100_000, help="of each precision (default: 100000)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: cpu)")
    parser.add_argument("--threads", type=int, help="threads of the CPU (default: all)")
    parser.add_argument("--precision", action="append", choices=PRECISIONS, help="only this one; repeatable")
    parser.add_argument("--seed", type=int, default=0, help="of the frames (default: 0)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the outcome there as well")
    given = parser.parse_args(arguments)
    outcomes = []
    print(HEAD)
    try:
        for precision in given.precision or PRECISIONS:
            outcomes.append(soak(precision, given.device, given.frames, given.seed, given.threads))
            print(_line(outcomes[-1]), flush=True)
    except ScnError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    for outcome in outcomes:
        for text in outcome.wrong:
            print(f"{outcome.precision}: {text}", file=sys.stderr)
    if given.json:
        text = json.dumps([outcome.as_json() for outcome in outcomes], indent=1)
        write_file(given.json, text)
    return int(any(outcome.wrong for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
