# SPDX-License-Identifier: Apache-2.0
"""An oracle that borrowed from the code it judges would share its mistakes."""

from __future__ import annotations

import ast
from pathlib import Path


def _imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return names


def test_the_oracle_imports_nothing_of_the_package() -> None:
    files = sorted(Path(__file__).parent.glob("*.py"))
    assert len(files) > 10
    for path in files:
        borrowed = [name for name in _imports(path) if name.partition(".")[0] in ("scn_fx", "quant")]
        assert not borrowed, f"{path.name} imports {borrowed}"
