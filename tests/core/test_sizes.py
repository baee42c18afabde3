# SPDX-License-Identifier: Apache-2.0
"""Sizes in the C++ sources are put together by `Size`, and outside numbers narrowed by `narrow`.

A product that wraps is a buffer that is too small; this looks for the places where one could be made.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

CSRC = Path(__file__).parents[2] / "scn_fx" / "csrc"
SOURCES = sorted(path for path in CSRC.rglob("*") if path.suffix in (".h", ".cpp", ".cu", ".cuh"))

TAKES_MEMORY = re.compile(
    r"new \w[\w:]*\[(?P<a>[^;]*)\]"
    r"|\.(?:resize|reserve|assign)\((?P<b>[^;]*)\);"
    r"|\b(?:vector|DeviceArray|MappedArray|Buffer)<[\w:]+>(?: \w+)?[({](?P<c>[^;]*)[)}];"
)
OUTSIDE = re.compile(r"(?<!static_cast<)\bint32_t\((?:\w+(?:\.|->))*(?:shape\(|shape\[|dims\[|sites\))")
# Kernels read shapes that were checked, as unsigned numbers or not.
DEVICE_CODE = (".cu", ".cuh")


def _statements(path: Path) -> list[tuple[int, str]]:
    """Statements without comments and strings, on one line each, with the line they end on."""
    text = re.sub(r"//[^\n]*|\"(?:\\.|[^\"\\])*\"", "", path.read_text(encoding="utf-8"))
    found, line = [], 1
    for statement in re.findall(r"[^;{}]*[;{}]", text):
        line += statement.count("\n")
        found.append((line, " ".join(statement.split())))
    return found


def _raw_sizes(statement: str) -> list[str]:
    """Products in what a statement takes memory for, unless `Size` makes them."""
    raw = []
    for match in TAKES_MEMORY.finditer(statement):
        size = next(group for group in match.groups() if group is not None)
        first = size.split(",")[0]
        if re.search(r"[\w)] \* [\w(]", first) and not re.search(r"\)\.(value|count)\(\)", first):
            raw.append(match.group())
    return raw


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(CSRC)))
def test_memory_is_taken_for_checked_sizes(path: Path) -> None:
    found = [(line, raw) for line, statement in _statements(path) for raw in _raw_sizes(statement)]
    assert not found, f"put these sizes together with Size (sizes.h): {found}"


@pytest.mark.parametrize(
    "path", [p for p in SOURCES if p.suffix not in DEVICE_CODE], ids=lambda path: str(path.relative_to(CSRC))
)
def test_outside_numbers_are_narrowed_by_a_check(path: Path) -> None:
    found = [(line, text) for line, text in _statements(path) if OUTSIDE.search(text)]
    assert not found, f"narrow these with narrow() (sizes.h): {found}"


@pytest.mark.parametrize(
    ("statement", "raw"),
    [
        ("data.reset(new char[size_t(a * b)]);", True),
        ("data.reset(new char[(Size(a) * b).count()]);", False),
        ("rows.resize(size_t(count) * 4);", True),
        ("rows.assign(size_t(count), a * b);", False),
        ("std::vector<char> packed(size_t(a) * size_t(b));", True),
        ("DeviceArray<float> sums(a * b);", True),
        ("std::vector<float> sums(count);", False),
    ],
)
def test_this_looks_where_memory_is_taken(statement: str, raw: bool) -> None:
    assert bool(_raw_sizes(statement)) == raw


@pytest.mark.parametrize(
    ("statement", "raw"),
    [
        ("v.x = int32_t(a.shape(0));", True),
        ("v.x = int32_t(value.dims[3]);", True),
        ("view.sites = int32_t(frame.sites);", True),
        ("v.x = narrow(a.shape(0), );", False),
        ("count = int32_t(stores.size());", False),
    ],
)
def test_this_looks_where_numbers_are_narrowed(statement: str, raw: bool) -> None:
    assert bool(OUTSIDE.search(statement)) == raw
