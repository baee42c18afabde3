# SPDX-License-Identifier: Apache-2.0
"""Finds every `pip install` line that a user can read: in pages, messages, CMake files and the Dockerfile."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.packaging.built import ROOT
from tests.test_project import extras, package_extras

__all__ = ["Line", "install_lines"]

_WORD = r"""'[^'\n]+'|"[^"\n]+"|--?[a-z][\w-]*|[\w./][\w./*=<>\[\],+-]*"""
_LINE = re.compile(rf"pip3? install((?:[ ]+(?:{_WORD}))+)")
_FOLDERS = ("scn_fx", "quant", "benchmarks", "examples", "docs", "cmake", "tools")


@dataclass(frozen=True)
class Line:
    """`pip install` with these words, and the file that says so."""

    words: tuple[str, ...]
    path: Path

    def __str__(self) -> str:
        return f"{self.path.relative_to(ROOT)}: pip install {shlex.join(self.words)}"

    @property
    def requirements(self) -> list[str]:
        """The words that name what to install; the value of `--find-links` is none."""
        named, skip = [], False
        for word in self.words:
            if not skip and not word.startswith("-"):
                named.append(word)
            skip = word == "--find-links"
        return named


def _text(node: ast.expr, extra: str) -> str:
    """A string of a program, with `extra` where something is put in; "" for other expressions."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part, extra) for part in node.values)
    return extra if isinstance(node, ast.FormattedValue) else ""


def _program_texts(path: Path) -> Iterator[str]:
    """The strings of a Python file; one that names an extra from a variable comes for each that there is."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            yield from (_text(node, extra) for extra in extras())
        elif isinstance(node, ast.Constant):
            yield _text(node, "")
    for _, extra in package_extras(path):
        yield f"pip install 'scn-fx[{extra}]'"


def _files() -> Iterator[Path]:
    yield from (ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "Dockerfile"))
    for folder in _FOLDERS:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".md", ".py", ".cmake", ".cpp", ".h"):
                yield path


def install_lines() -> list[Line]:
    """Every line once for each file that has it, with its options."""
    found = {}
    for path in _files():
        whole = path.suffix == ".py"
        texts = _program_texts(path) if whole else [path.read_text(encoding="utf-8")]
        for text in texts:
            for words in _LINE.findall(text):
                sentence = re.sub(r"(?<=[\w\]'\"])[.,;:]+$", "", words)
                found[Line(tuple(shlex.split(sentence)), path)] = None
    return list(found)
