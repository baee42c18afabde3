# SPDX-License-Identifier: Apache-2.0
"""`python -m benchmarks accuracy codec|sensors|detector`: what int8 costs on trained networks.

`codec` and `sensors` read real sweeps from the folder that SCN_FX_DATA names; `detector` makes its scenes.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from pathlib import Path
from typing import Any

from benchmarks.accuracy import codec_table, detector_table, sensor_table
from benchmarks.accuracy.methods import choose
from scn_fx.errors import CalibrationWarning, ScnError
from scn_fx.files.atomic import write_file

__all__ = ["main"]


def _measured(given: argparse.Namespace) -> tuple[list[dict[str, object]], str]:
    variants = choose(given.method)
    if given.table == "codec":
        codec = codec_table.codec_results(variants, calibrate_on=given.calibrate_on, device=given.device)
        return codec_table.as_json(codec), codec_table.codec_table(codec)
    if given.table == "sensors":
        sensors = sensor_table.sensor_results(variants, given.device)
        return sensor_table.as_json(sensors), sensor_table.sensor_table(sensors)
    scenes: dict[str, Any] = {"scenes": given.scenes, "frames": given.frames, "sets": given.sets}
    detector = detector_table.detector_results(variants, device=given.device, **scenes)
    return detector_table.as_json(detector), detector_table.detector_table(detector)


def main(arguments: list[str] | None = None) -> int:
    """Print the table; 1 after an error."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks accuracy", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("table", choices=("codec", "sensors", "detector"))
    parser.add_argument("--method", action="append", default=[], help="only this line; repeatable")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument("--calibrate-on", metavar="SWEEP", help="codec: ranges from this sweep alone")
    parser.add_argument("--scenes", type=int, default=500, help="detector: scenes to evaluate on")
    parser.add_argument("--frames", type=int, default=64, help="detector: frames of a calibration set")
    parser.add_argument("--sets", type=int, default=3, help="detector: calibration sets")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there as well")
    given = parser.parse_args(arguments)
    warnings.simplefilter("ignore", CalibrationWarning)
    try:
        plain, table = _measured(given)
        if given.json:
            write_file(given.json, json.dumps(plain, indent=1) + "\n")
    except ScnError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
