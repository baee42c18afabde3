# SPDX-License-Identifier: Apache-2.0
"""`python -m scn_fx.bench.probe JOB`: memory of a process that imports the runtime alone and runs frames.

JOB is JSON: {"model", "frame" (npz with features and indices), "threads", "precision", "runs"}. Prints JSON.
`scn_fx.bench.memory` starts it in an interpreter of its own.
"""

from __future__ import annotations

import json
import resource
import sys
from typing import Any


def _memory() -> dict[str, int]:
    """Bytes: resident now, of these anonymous and mapped from files, and the peak.

    Linux keeps the largest `ru_maxrss` over an exec, so that a child of a large process reports its parent's
    peak; VmHWM belongs to this program alone.
    """
    try:
        with open("/proc/self/status", encoding="ascii") as file:
            fields = dict(line.split(":", 1) for line in file)
        names = {"rss": "VmRSS", "anonymous": "RssAnon", "file": "RssFile", "peak": "VmHWM"}
        return {key: int(fields[name].split()[0]) * 1024 for key, name in names.items()}
    except (OSError, KeyError):
        unit = 1 if sys.platform == "darwin" else 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        return {"rss": peak, "peak": peak}


def main(job: dict[str, Any]) -> dict[str, Any]:
    """Load, run, and say what the process holds after each step."""
    stages = {"interpreter": _memory()}
    import numpy  # noqa: F401

    stages["numpy"] = _memory()
    from scn_fx import Engine
    from scn_fx.errors import ArgumentError
    from scn_fx.files.arrays import open_npz

    stages["import"] = _memory()
    engine = Engine(job["model"], precision=job["precision"], threads=job["threads"])
    stages["load"] = _memory()
    with open_npz(job["frame"], ArgumentError) as file:
        features, indices = file["features"], file["indices"]
    stages["frame"] = _memory()
    outputs = engine(features, indices)
    stages["first run"] = _memory()
    for _ in range(job["runs"] - 1):
        outputs = engine(features, indices)
    stages["last run"] = _memory()
    arrays = _arrays(outputs)
    return {
        "stages": stages,
        "runs": job["runs"],
        "threads": engine.threads,
        "isa": engine.isa,
        "input_bytes": int(features.nbytes + indices.nbytes),
        "output_bytes": int(sum(array.nbytes for array in arrays)),
        "buffer_bytes": engine.describe().get("buffer_bytes"),
        "unwanted": sorted({"torch", "spconv", "modelopt", "matplotlib"} & set(sys.modules)),
    }


def _arrays(value: Any) -> list[Any]:
    return [array for part in value for array in _arrays(part)] if isinstance(value, tuple) else [value]


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
