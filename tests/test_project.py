# SPDX-License-Identifier: Apache-2.0
"""What the project says about itself: versions, extras, licence lines, the size of files."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import scn_fx

ROOT = Path(__file__).parents[1]
PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
FOLDERS = ("scn_fx", "quant", "tests", "benchmarks", "docs", "examples")
SUFFIXES = (".py", ".pyi", ".cpp", ".h", ".cu", ".cuh")
LONGEST = 600
"""Lines of a file that can still be read in one sitting; most stay below 400."""


def sources() -> Iterator[Path]:
    """The source files of the project; empty ones have nothing to license."""
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in SUFFIXES and path.stat().st_size:
                yield path


def extras() -> dict[str, list[str]]:
    """Names of the optional dependencies, and their requirements (Python 3.10 has no TOML reader)."""
    (table,) = re.findall(r"^\[project\.optional-dependencies\]\n(.*?)(?=^\[)", PROJECT, re.DOTALL | re.M)
    found = re.findall(r"^([\w-]+) = \[(.*?)\]$", table, re.M)
    return {name: re.findall(r'"([^"]+)"', requirements) for name, requirements in found}


def test_the_version_is_told_once() -> None:
    assert re.findall(r'^version = "(.+)"$', PROJECT, re.M) == [scn_fx.__version__]


def package_extras(path: Path) -> Iterator[tuple[str | None, str]]:
    """(package, extra) of every `MissingPackageError.of` in a file; a package in a variable is None."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    tables = {ast.unparse(n.targets[0]): n.value for n in tree.body if isinstance(n, ast.Assign)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "MissingPackageError.of":
            package, extra = node.args[:2]
            if isinstance(extra, ast.Subscript):
                yield from ast.literal_eval(tables[ast.unparse(extra.value)]).items()
            else:
                yield (
                    ast.literal_eval(package) if isinstance(package, ast.Constant) else None,
                    ast.literal_eval(extra),
                )


def test_errors_about_missing_packages_name_the_extra_that_installs_them() -> None:
    files = [p for folder in ("scn_fx", "quant") for p in (ROOT / folder).rglob("*.py")]
    pairs = {pair for path in files for pair in package_extras(path)}
    assert len(pairs) > 8 and ("spconv", "spconv-cpu") in pairs and ("onnxscript", "export") in pairs
    distributions = {"modelopt": "nvidia-modelopt", "cumm": "spconv"}  # spconv brings cumm
    known = extras()
    for package, extra in pairs:
        assert extra in known, f"no extra {extra!r} in pyproject.toml"
        names = [re.split(r"[<>=\[]", requirement)[0] for requirement in known[extra]]
        assert package is None or distributions.get(package, package) in names, f"{extra} lacks {package}"


def test_documents_and_extras_name_extras_that_exist() -> None:
    pages = [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")]
    texts = [page.read_text(encoding="utf-8") for page in pages] + [PROJECT]
    named = {
        name
        for text in texts
        for group in re.findall(r"scn-fx\[([\w,-]+)\]", text)
        for name in group.split(",")
    }
    assert {"all", "spconv-cpu", "quant"} <= named <= set(extras())


def test_every_source_names_its_licence() -> None:
    for path in sources():
        mark = "#" if path.suffix in (".py", ".pyi") else "//"
        first = path.read_text(encoding="utf-8").partition("\n")[0]
        assert first == f"{mark} SPDX-License-Identifier: Apache-2.0", path


def test_no_source_is_too_long() -> None:
    for path in sources():
        count = len(path.read_text(encoding="utf-8").splitlines())
        assert count <= LONGEST, f"{path}: {count} lines"


def test_there_are_sources_of_every_kind() -> None:
    kinds = {(path.relative_to(ROOT).parts[0], path.suffix) for path in sources()}
    assert {
        ("scn_fx", ".cpp"),
        ("scn_fx", ".h"),
        ("scn_fx", ".pyi"),
        ("quant", ".py"),
        ("tests", ".py"),
    } <= kinds
