# SPDX-License-Identifier: Apache-2.0
"""Memory of a process that runs the engine and nothing else, and what importing the package costs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from scn_fx.errors import ScnError
from scn_fx.lidar import Frame

__all__ = ["import_milliseconds", "measure_memory"]

_TIMED_IMPORT = """
import time
began = time.perf_counter()
{code}
print(time.perf_counter() - began)
"""


def measure_memory(
    model: Path, frame: Frame, *, precision: str | None = None, threads: int = 1, runs: int = 3
) -> dict[str, Any]:
    """Run `frame` in a new interpreter that imports the runtime alone; bytes as plain data.

    "stages" holds after each step what is resident ("rss"), where the system tells: how much of it is
    anonymous and how much mapped from files (libraries), and the "peak" so far. Beside it "input_bytes",
    "output_bytes", "buffer_bytes" (what the engine says of its buffers, None if it says nothing) and
    "unwanted" (heavy packages that were loaded: none should be).
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "frame.npz"
        np.savez(file, features=frame.features, indices=frame.indices)
        job = {
            "model": str(model.resolve()),
            "frame": str(file),
            "precision": precision,
            "threads": threads,
            "runs": runs,
        }
        found: dict[str, Any] = json.loads(_python("-m", "scn_fx.bench.probe", json.dumps(job)))
    return {"frame": frame.name, "voxels": len(frame), **found}


def import_milliseconds(repeat: int = 3) -> dict[str, float]:
    """Median time of imports in new interpreters, by statement; the interpreter's own start is not in it."""
    codes = ("import scn_fx", "from scn_fx import Engine", "import numpy")
    return {
        code: median(float(_python("-c", _TIMED_IMPORT.format(code=code))) for _ in range(repeat)) * 1e3
        for code in codes
    }


def _python(*arguments: str) -> str:
    # The package that this process runs, installed or not.
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join(part for part in (root, os.environ.get("PYTHONPATH")) if part)
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise ScnError(f"A new interpreter failed to run the engine: {lines[-1]}")
    return done.stdout
