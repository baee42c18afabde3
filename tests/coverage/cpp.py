# SPDX-License-Identifier: Apache-2.0
"""gcovr's figures of the engine and its bindings."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.coverage.figures import Figures
from tests.cpp_programs import ROOT

__all__ = ["forget", "measure"]


def forget(build: Path) -> None:
    """Removes what earlier runs counted; the compiled files stay."""
    for old in build.rglob("*.gcda"):
        old.unlink()


def measure(build: Path) -> Figures:
    """Reads GCC's counts of `build`; writes pages to its folder `cpp` and a table to `cpp.txt`.

    GCC counts a template or an inline function once for each file that has it; a line ran if one of them did.
    """
    (build / "cpp").mkdir(exist_ok=True)
    lines = build / "cpp.json"
    command = [sys.executable, "-m", "gcovr", "--root", str(ROOT), "--object-directory", str(build)]
    # Loops of kernels do run some thousand million times.
    command += ["--gcov-suspicious-hits-threshold", "0"]
    command += ["--filter", "scn_fx/csrc/", "--exclude", "scn_fx/csrc/cuda/"]
    command += ["--html-details", str(build / "cpp" / "index.html"), "--txt", str(build / "cpp.txt")]
    done = subprocess.run([*command, "--json", str(lines), str(build)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"gcovr cannot read the counts in {build}:\n{done.stdout}{done.stderr}")
    total, missing = 0, {}
    for file in json.loads(lines.read_text(encoding="utf-8"))["files"]:
        counts: dict[int, int] = {}
        for line in file["lines"]:
            counts[line["line_number"]] = counts.get(line["line_number"], 0) + line["count"]
        total += len(counts)
        missing[ROOT / file["file"]] = {number for number, count in counts.items() if not count}
    absent = sum(map(len, missing.values()))
    return Figures(100 * (1 - absent / total), total, missing)
