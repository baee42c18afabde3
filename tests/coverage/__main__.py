# SPDX-License-Identifier: Apache-2.0
"""`python -m tests.coverage [pytest arguments]`: both figures, and an error where one is below its limit.

Python: lines and branches of `scn_fx` and `quant`, in every process that the tests start. C++: lines of the
engine and its bindings, built with GCC's counters. Files of CUDA are left out: this build has none of them.
Arguments choose some of the tests; their figures are shown and not held to the limits.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests import instrumented
from tests.coverage import cpp, python, unreached
from tests.cpp_programs import ROOT

PYTHON_LIMIT = 90.0
CPP_LIMIT = 85.0
FOLDER = ROOT / "build" / "coverage"


def _run_tests(build: Path, arguments: list[str]) -> int:
    """Pytest's exit code; lines are counted in every process."""
    environment = {**os.environ, **instrumented.environment(build), "OMP_NUM_THREADS": "1"}
    workers = ["-p", "tests.coverage.plugin", "--numprocesses", "2", "--dist", "loadfile"]
    command = [sys.executable, "-m", "coverage", "run", f"--data-file={python.DATA}", "-m", "pytest"]
    return subprocess.run([*command, *workers, *arguments], cwd=ROOT, env=environment).returncode


def _holds(name: str, percent: float, limit: float, what: str) -> bool:
    """Writes a figure beside its limit."""
    print(f"{name:<7}{percent:6.2f} % of {what}, at least {limit:g} % wanted")
    return percent >= limit


def main(arguments: list[str]) -> int:
    """0 if the tests pass and both figures hold."""
    build = instrumented.build("coverage", "-DSCN_FX_COVERAGE=ON", "-DSCN_FX_SHARED=ON")
    python.forget()
    cpp.forget(build)
    tests = _run_tests(build, arguments)
    lines = python.measure(FOLDER)
    files = cpp.measure(build)
    unreached.write(lines.missing, files.missing, FOLDER / "unreached_errors.txt")
    print(f"saved {FOLDER.relative_to(ROOT)}/python/index.html, cpp/index.html, unreached_errors.txt")
    hold = _holds("Python", lines.percent, PYTHON_LIMIT, f"{lines.total:,} lines and branches")
    hold &= _holds("C++", files.percent, CPP_LIMIT, f"{files.total:,} lines (CPU)")
    return tests or int(not hold and not arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
