# SPDX-License-Identifier: Apache-2.0
"""The stub of the compiled module names what the module has, with the module's arguments."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from scn_fx import _core

STUB = Path(__file__).parents[1] / "scn_fx" / "_core.pyi"


def _functions(body: list[ast.stmt]) -> dict[str, list[str]]:
    return {
        item.name: [argument.arg for argument in item.args.args if argument.arg != "self"]
        for item in body
        if isinstance(item, ast.FunctionDef)
    }


def _documented_arguments(function: object) -> list[str]:
    """Argument names in the signature that nanobind writes into the docstring's first line."""
    signature = str(function.__doc__).splitlines()[0]
    inside = signature[signature.index("(") + 1 : signature.rindex(") ->")]
    inside = re.sub(r"\[[^\]]*\]", "", re.sub(r"\[[^\[\]]*\]", "", inside))
    names = [part.split(":")[0].strip() for part in inside.split(", ")]
    return [name for name in names if name.isidentifier() and name != "self"]


def test_the_stub_names_every_function_with_its_arguments() -> None:
    body = ast.parse(STUB.read_text()).body
    functions = _functions(body)
    assert set(functions) == {name for name in dir(_core) if name[0].islower()}
    for name, arguments in functions.items():
        assert _documented_arguments(getattr(_core, name)) == arguments, name


def test_the_stub_names_what_a_problem_is_made_of() -> None:
    classes = {item.name: item for item in ast.parse(STUB.read_text()).body if isinstance(item, ast.ClassDef)}
    found = _functions(classes["ConvolutionProblem"].body)["__init__"]
    assert _documented_arguments(_core.ConvolutionProblem.__init__) == found


@pytest.mark.parametrize(
    ("name", "methods"),
    [
        ("Engine", ("run", "trace", "profile")),
        ("CudaEngine", ("enqueue", "enqueue_at", "results", "trace", "profile", "order")),
    ],
)
def test_the_stub_names_every_method_of_the_engines(name: str, methods: tuple[str, ...]) -> None:
    classes = {item.name: item for item in ast.parse(STUB.read_text()).body if isinstance(item, ast.ClassDef)}
    found, compiled = _functions(classes[name].body), getattr(_core, name)
    assert set(found) - {"__init__"} == {method for method in dir(compiled) if not method.startswith("_")}
    for method in ("__init__", *methods):
        assert _documented_arguments(getattr(compiled, method)) == found[method], method
