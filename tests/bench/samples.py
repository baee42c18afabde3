# SPDX-License-Identifier: Apache-2.0
"""Made-up timings and reports, whose ratios are known."""

from __future__ import annotations

from typing import Any

from scn_fx.bench.results import Subject, growth, result_rows
from scn_fx.bench.timing import Timing

MS = {
    ("spconv", "fp32"): 600.0,
    ("scn-fx", "fp32"): 200.0,
    ("scn-fx", "fp16"): 190.0,
    ("scn-fx", "int8"): 50.0,
}
"""Milliseconds with two threads; one thread takes 1.8 times as long."""


def timing(*milliseconds: float) -> Timing:
    return Timing(tuple(ms / 1e3 for ms in milliseconds))


def frame(name: str, voxels: int, pairs: int, factor: float = 1.0, **changes: float) -> dict[str, Any]:
    """One frame of a report; `changes` sets milliseconds of precisions of the engine."""
    subjects = {}
    for (engine, precision), ms in MS.items():
        ms = changes.get(precision, ms) if engine == "scn-fx" else ms
        for threads, slower in ((1, 1.8), (2, 1.0)):
            middle = ms * factor * slower
            subjects[Subject(engine, precision, threads)] = timing(middle, middle * 1.1, middle * 0.9)
    rows = result_rows(subjects)
    return {"frame": name, "source": "", "voxels": voxels, "active_pairs": pairs, "macs": 0, "runs": rows}


def report(**changes: float) -> dict[str, Any]:
    """A report in which every goal is reached, unless `changes` slow a precision down."""
    frames = [
        frame("small", 17_000, 1_000_000, 0.25, **changes),
        frame("large", 80_000, 5_000_000, **changes),
    ]
    return {
        "format": 1,
        "machine": {"cpu": "a processor", "processors": 2, "load": 0.5, "isa": "avx2", "spconv": None},
        "settings": {"threads": [1, 2], "precisions": ["fp32", "fp16", "int8"], "repeat": 3},
        "peaks": [{"threads": 2, "kind": "int8", "gops": None}],
        "frames": frames,
        "skipped": ["kitti: 4 columns."],
        "noisy": [],
        "growth": growth(frames),
        "layers": {
            "frame": "large",
            "precision": "int8",
            "threads": 2,
            "runs": 3,
            "rows": [],
            "timed": 50.0,
            "totals": {"kernel maps": 8.0, "convolutions": 40.0, "rest": 2.0, "total": 50.0},
        },
        "memory": [
            {
                "precision": "int8",
                "threads": 2,
                "file_bytes": 10,
                "input_bytes": 10,
                "output_bytes": 10,
                "buffer_bytes": {"arena": 100_000_000, "maps": 40_000_000},
                "unwanted": [],
                "stages": {"last run": {"rss": 1, "anonymous": 1, "file": 0, "peak": 2}},
            }
        ],
        "imports": {"import scn_fx": 20.0, "from scn_fx import Engine": 150.0, "import numpy": 130.0},
        "seconds": 1.0,
    }
