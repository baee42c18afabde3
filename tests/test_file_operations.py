# SPDX-License-Identifier: Apache-2.0
"""Files are opened in one place: everything else goes through `scn_fx.files`, which checks and translates."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = [
    path
    for folder in ("scn_fx", "quant", "benchmarks", "examples")
    for path in sorted((ROOT / folder).rglob("*.py"))
]

RAW = {
    *(
        "open",
        "read_text",
        "read_bytes",
        "write_text",
        "write_bytes",
        "fromfile",
        "tofile",
        "loadtxt",
        "memmap",
    ),
    *("np.load", "np.save", "json.load", "json.loads", "yaml.load", "yaml.safe_load", "ZipFile"),
    *("tomllib.load", "tomllib.loads"),
    *("os.open", "os.replace", "os.rename", "mkstemp", "torch.load", "torch.save", "onnx.load", "onnx.save"),
}
"""Calls that read or write a file, or take its content apart."""

ALLOWED = {
    "scn_fx/files/archives.py": {"ZipFile", "open"},
    "scn_fx/files/atomic.py": {"os.open", "os.replace", "open", "mkstemp"},
    "scn_fx/files/json_text.py": {"json.loads"},
    "scn_fx/files/limits.py": {"open"},  # /sys
    "scn_fx/files/reading.py": {"os.open"},
    "scn_fx/files/toml_text.py": {"tomllib.loads"},
    "scn_fx/quant/checkpoint_export.py": {"torch.save"},  # into a stream of scn_fx.files
    "scn_fx/quant/checkpoint_files.py": {"torch.load"},  # on a stream that is open and checked
    "scn_fx/quant/unpickling.py": {"torch.load"},  # the same
    "scn_fx/quant/provenance.py": {"json.loads"},  # of its own text
    "scn_fx/bench/host.py": {"open"},  # /proc
    "scn_fx/bench/memory.py": {"json.loads"},  # what a child has printed
    "scn_fx/bench/model.py": {"read_bytes"},  # our own sources
    "scn_fx/bench/probe.py": {"open", "json.loads"},  # /proc, and its parent's words
    "benchmarks/models/originals/checkout.py": {"read_text"},  # Python sources, as Python reads them
    "benchmarks/models/table.py": {"read_text"},  # our own page
    "benchmarks/soak/memory.py": {"read_text"},  # /proc
}


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """The calls of a file by the names of `RAW`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            whole = ast.unparse(node.func)
            last = whole.rpartition(".")[2]
            name = whole if whole in RAW else last
            # os.open and np.load are other things than open and load.
            if name in RAW and (
                name == whole or name not in ("open",) or not whole.startswith(("os.", "tarfile."))
            ):
                yield name, node


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_files_are_opened_in_one_place(path: Path) -> None:
    found = {name for name, _ in calls(path)}
    assert found <= ALLOWED.get(path.relative_to(ROOT).as_posix(), set())


def test_no_exception_is_out_of_date() -> None:
    for name, allowed in ALLOWED.items():
        assert {call for call, _ in calls(ROOT / name)} == allowed, name


def test_texts_name_their_encoding() -> None:
    """Without one the locale decides."""
    for path in SOURCES:
        for name, node in calls(path):
            if name not in ("open", "read_text", "write_text"):
                continue
            mode = node.args[1] if len(node.args) > 1 else None
            binary = isinstance(mode, ast.Constant) and "b" in str(mode.value)
            owner = ast.unparse(node.func)
            if not binary and owner not in ("os.fdopen", "target.open", "self._archive.open"):
                assert any(keyword.arg == "encoding" for keyword in node.keywords), f"{path}:{node.lineno}"


def test_numbers_do_not_follow_the_locale() -> None:
    """Neither the format "n" nor the functions of the module locale; time.strptime reads names of months."""
    for path in SOURCES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.FormattedValue) and node.format_spec is not None:
                spec = "".join(
                    part.value for part in node.format_spec.values if isinstance(part, ast.Constant)
                )
                assert not spec.endswith("n"), f"{path}:{node.lineno}"
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = (
                    [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
                )
                assert not {"locale", "_strptime"} & set(names), f"{path}:{node.lineno}"
            if isinstance(node, ast.Attribute):
                assert node.attr not in ("strptime", "setlocale", "format_string"), f"{path}:{node.lineno}"
