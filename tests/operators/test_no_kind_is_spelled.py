# SPDX-License-Identifier: Apache-2.0
"""No module but the table's decides by the name of an operator or activation: it asks the spec."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from scn_fx.operators import ACTIVATIONS, OPERATORS

ROOT = Path(__file__).parents[2]
NAMES = frozenset(OPERATORS) | frozenset(ACTIVATIONS)

# What these compare is no kind of a layer, though it may be called the same.
EXEMPT = {
    "scn_fx/operators": "the table",
    "scn_fx/passes/drop_copies.py": "aten operators",
    "scn_fx/passes/lower_layout.py": "aten operators",
}


def spelled(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and text of each operator name that something is compared with, looked up by, or matched."""
    constants: dict[str, ast.expr] = {
        target.id: node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }

    def names(value: ast.expr) -> Iterator[tuple[int, str]]:
        if isinstance(value, ast.Name) and value.id in constants:
            value = constants[value.id]
        for part in ast.walk(value):
            if isinstance(part, ast.Constant) and isinstance(part.value, str) and part.value in NAMES:
                yield part.lineno, part.value

    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            for side in (node.left, *node.comparators):
                if isinstance(side, ast.Constant | ast.Name | ast.Tuple | ast.List | ast.Set | ast.Call):
                    yield from names(side)
        elif isinstance(node, ast.Dict):
            for key in node.keys:
                if isinstance(key, ast.Constant):
                    yield from names(key)
        elif isinstance(node, ast.MatchValue):
            yield from names(node.value)


def sources() -> list[Path]:
    return sorted(path for folder in ("scn_fx", "quant") for path in (ROOT / folder).rglob("*.py"))


def exempt(path: Path) -> bool:
    return any((ROOT / name) in (path, *path.parents) for name in EXEMPT)


def test_no_module_decides_by_the_name_of_an_operator() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line} {name!r}"
        for path in sources()
        if not exempt(path)
        for line, name in spelled(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert not found, "ask the operator's spec (scn_fx.operators) instead: " + ", ".join(found)


def test_exemptions_are_needed() -> None:
    for name in EXEMPT:
        files = [path for path in sources() if (ROOT / name) in (path, *path.parents)]
        assert any(list(spelled(ast.parse(path.read_text(encoding="utf-8")))) for path in files), name


@pytest.mark.parametrize(
    "code",
    [
        'layer.kind == "convolution"',
        'layer.kind != "add"',
        'layer.kind in ("convolution", "add")',
        '_DENSE = frozenset({"reshape"})\nx = kind in _DENSE',
        'observers = {"add": 1}',
        'match kind:\n    case "relu":\n        pass',
        'match kind:\n    case "relu" | "add":\n        pass',
        'layer.activation == "ReLU"',
    ],
)
def test_what_is_found(code: str) -> None:
    assert list(spelled(ast.parse(code)))


@pytest.mark.parametrize("code", ['x = "add"', 'layer.argument("precision") == "int8"', 'f("relu")'])
def test_what_may_be_written(code: str) -> None:
    assert not list(spelled(ast.parse(code)))
