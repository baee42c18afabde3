# SPDX-License-Identifier: Apache-2.0
"""The errors in the code that no test provoked, as a list."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.cpp_programs import ROOT

__all__ = ["cpp_errors", "python_errors", "write"]

_CPP = re.compile(r"\b(?:fail(?:_\w+)?\(|throw\b)")


def python_errors(text: str) -> dict[int, str]:
    """Lines at which a program raises, and what; raising again what was caught is none."""
    return {
        node.lineno: ast.unparse(node)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Raise) and node.exc is not None
    }


def cpp_errors(text: str) -> dict[int, str]:
    """Lines at which C++ code fails, and what they say; those that declare such a function are none."""
    lines = enumerate(text.splitlines(), start=1)
    return {n: line.strip() for n, line in lines if _CPP.search(line) and line.startswith(" ")}


def write(python: dict[Path, set[int]], cpp: dict[Path, set[int]], to: Path) -> int:
    """Writes `file:line  code` of every error at a line that is missing; returns how many."""
    found = []
    for missing, errors in ((python, python_errors), (cpp, cpp_errors)):
        for path in sorted(missing):
            known = errors(path.read_text(encoding="utf-8"))
            name = path.relative_to(ROOT)
            found += [f"{name}:{line}  {known[line]}" for line in sorted(missing[path] & set(known))]
    to.write_text("".join(f"{line}\n" for line in found), encoding="utf-8")
    return len(found)
