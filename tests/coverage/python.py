# SPDX-License-Identifier: Apache-2.0
"""Coverage.py's figures; pyproject.toml has its settings."""

from __future__ import annotations

import json
from pathlib import Path

from tests.coverage.figures import Figures
from tests.cpp_programs import ROOT

__all__ = ["DATA", "forget", "measure"]

DATA = ROOT / "build" / "coverage" / "python.data"
"""Each process writes a file of its own beside this one."""


def forget() -> None:
    """Removes what earlier runs counted."""
    for old in DATA.parent.glob(f"{DATA.name}*"):
        old.unlink()


def measure(folder: Path) -> Figures:
    """Joins what all processes counted; writes pages to `folder`/python, tables to python.txt and .json."""
    from coverage import Coverage

    counted = Coverage(data_file=str(DATA), config_file=str(ROOT / "pyproject.toml"))
    counted.combine(strict=True)
    counted.save()
    counted.html_report(directory=str(folder / "python"))
    with (folder / "python.txt").open("w", encoding="utf-8") as table:
        counted.report(file=table, show_missing=True, skip_covered=True)
    counted.json_report(outfile=str(folder / "python.json"))
    found = json.loads((folder / "python.json").read_text(encoding="utf-8"))
    totals = found["totals"]
    missing = {ROOT / name: set(file["missing_lines"]) for name, file in found["files"].items()}
    return Figures(totals["percent_covered"], totals["num_statements"] + totals["num_branches"], missing)
