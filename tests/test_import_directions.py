# SPDX-License-Identifier: Apache-2.0
"""Who may import whom: no stage imports a later one, and no two modules of a package import each other."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

STAGES = (
    "scn_fx.capture",
    "scn_fx.quant",
    "scn_fx.onnx",
    "scn_fx.runtime",
    "scn_fx.exporting",
    "scn_fx.bench",
    "scn_fx.cli",
    "benchmarks",
)
"""In order: each may import those before it."""
UNDERNEATH = ("scn_fx.files", "scn_fx.lidar", "scn_fx.ops", "scn_fx.passes")
"""What all stages stand on: imports none of them."""

LOOKS_AHEAD = {
    ("scn_fx.quant.layer_times", "scn_fx.runtime"),  # times engines
    ("scn_fx.quant.layer_times", "scn_fx.exporting"),
    ("scn_fx.quant.layer_times", "scn_fx.bench"),
    ("scn_fx.quant.retrofitting", "scn_fx.runtime"),  # ranges for a file
}
"""Module and later stage that it imports, when it is called."""


@cache
def modules() -> dict[str, Path]:
    """Every module by its name; a package is its `__init__`."""
    found = {}
    for folder in ("scn_fx", "quant", "benchmarks"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def imports(module: str) -> frozenset[str]:
    """The modules of the project that one imports, in functions and for types too."""
    found = set()
    for node in ast.walk(ast.parse(modules()[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (inner & modules().keys()) or {node.module}
    return frozenset(found & modules().keys())


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


@pytest.mark.parametrize("stage", (*UNDERNEATH, *STAGES))
def test_no_stage_imports_a_later_one(stage: str) -> None:
    later = STAGES if stage in UNDERNEATH else STAGES[STAGES.index(stage) + 1 :]
    own = [module for module in modules() if within(module, stage)]
    assert own, f"{stage} is no package any more"
    found = {
        (module, other)
        for module in own
        for other in later
        if any(within(name, other) for name in imports(module))
    }
    assert found == {pair for pair in LOOKS_AHEAD if within(pair[0], stage)}


@pytest.mark.parametrize("package", ["scn_fx.runtime", "scn_fx.bench", "scn_fx.cli", "benchmarks"])
def test_modules_of_a_package_import_in_one_direction(package: str) -> None:
    waiting = {module for module in modules() if within(module, package) and module != package}
    assert len(waiting) > 5
    while waiting:
        free = {module for module in waiting if not imports(module) & (waiting - {module})}
        assert free, f"these import each other, or hang on some that do: {sorted(waiting)}"
        waiting -= free
