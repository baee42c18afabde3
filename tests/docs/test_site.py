# SPDX-License-Identifier: Apache-2.0
"""What the site is made of: C++ headers, environment variables, names of commands, pictures."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from types import ModuleType

import click
import pytest

from docs.scripts.draw_demo import LARGEST
from docs.scripts.draw_speed import draw, read_rows
from scn_fx.cli.app import COMMANDS, command
from tests.docs.test_docs import DOCS, ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def headers(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The extension that renders headers."""
    monkeypatch.syspath_prepend(str(DOCS / "_ext"))
    return importlib.import_module("cpp_headers")


def test_every_public_header_is_rendered_with_all_that_it_declares(headers: ModuleType) -> None:
    page = (DOCS / "reference" / "cpp.md").read_text(encoding="utf-8")
    found = sorted(headers.INCLUDE.rglob("*.h"))
    assert len(found) >= 6
    for path in found:
        name = path.relative_to(headers.INCLUDE).as_posix()
        assert f".. cpp-header:: {name}\n" in page, name
        _, declared = headers.read_header(path)
        named = {word for made in declared for word in re.findall(r"\w+", made.signature)}
        text = path.read_text(encoding="utf-8")
        classes = re.findall(
            r"^(?:struct|class|enum class) (?:SCN_FX_EXPORT )?(\w+)(?: [^;]*)?\{", text, re.MULTILINE
        )
        assert set(classes) <= named and (declared or "#define" in text), name


def test_every_public_function_says_what_it_does(headers: ModuleType) -> None:
    functions = 0
    for path in headers.INCLUDE.rglob("*.h"):
        _, declared = headers.read_header(path)
        for made in [*declared, *(member for each in declared for member in each.members)]:
            # moving and destroying are what they always are
            if made.kind == "function" and "&&" not in made.signature and not made.signature.startswith("~"):
                assert len(made.text) > 10, f"{path.name}: {made.signature}"
                functions += 1
    assert functions > 15


def test_declarations_keep_their_comments(headers: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "a.h"
    path.write_text(
        "// SPDX\n// What it is.\n#pragma once\nnamespace scn {\n\n/// Of a thing.\nclass Thing {\n public:\n"
        "  /// Made of bytes,\n  /// copied.\n  explicit Thing(const void* bytes, int n = 0) : n_(n) {}\n"
        "  Thing& operator=(Thing&&) noexcept;\n\n  // Of some only.\n\n  int a = 0, b = 0;  // both\n"
        " private:\n  int n_;\n};\n\n}  // namespace scn\n"
    )
    head, (thing,) = headers.read_header(path)
    assert head == "What it is." and (thing.kind, thing.text) == ("class", "Of a thing.")
    assert [(m.kind, m.signature, m.text) for m in thing.members] == [
        ("function", "Thing(const void* bytes, int n = 0)", "Made of bytes, copied."),
        ("function", "Thing& operator=(Thing&&) noexcept", ""),
        ("remark", "", "Of some only."),
        ("member", "int a = 0", "both"),
        ("member", "int b = 0", "both"),
    ]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("int a;\n", "expected one line 'namespace NAME {'"),
        ("namespace scn {\nint f(\n}  // namespace scn\n", "expected the end of the statement that begins"),
        (
            "namespace scn {\ntemplate <class T> T x;\n}  // namespace scn\n",
            "expected a declaration in the style",
        ),
    ],
)
def test_headers_of_another_style_are_refused(
    headers: ModuleType, tmp_path: Path, body: str, message: str
) -> None:
    (tmp_path / "a.h").write_text("// SPDX\n" + body)
    with pytest.raises(headers.HeaderError, match=re.escape(message)):
        headers.read_header(tmp_path / "a.h")


def test_every_environment_variable_that_is_read_is_described() -> None:
    page = (DOCS / "reference" / "environment.md").read_text(encoding="utf-8")
    read = set()
    for folder in ("scn_fx", "quant", "tests", "benchmarks", "examples", "cmake"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".cpp", ".h", ".cu", ".cmake") and path != Path(__file__):
                text = path.read_text(encoding="utf-8")
                read |= set(re.findall(r'(?:getenv\(|environ\.get\(|environ\[)"(SCN_FX_\w+)"', text))
                read |= set(re.findall(r"environment variable (SCN_FX_\w+)", text))
    assert {"SCN_FX_ISA", "SCN_FX_DATA", "SCN_FX_CUDA", "SCN_FX_FUZZ_TALLY"} <= read
    assert {name for name in read if f"`{name}`" not in page} == set()


def test_commands_are_called_by_their_names() -> None:
    context = click.Context(command)
    for name in COMMANDS:
        found = command.get_command(context, name)
        assert found is not None and found.name == name


def test_pictures_are_small() -> None:
    pictures = list((DOCS / "images").iterdir())
    assert len(pictures) >= 7
    assert [path.name for path in pictures if path.stat().st_size > LARGEST] == []


def test_every_picture_is_shown_and_described() -> None:
    pages = [README, *(page.read_text(encoding="utf-8") for page in DOCS.rglob("*.md"))]
    shown = [pair for text in pages for pair in re.findall(r"!\[(.*?)\]\(.*?images/([\w.-]+)\)", text)]
    assert {path.name for path in (DOCS / "images").iterdir()} == {name for _, name in shown}
    assert all(len(description) > 20 for description, _ in shown)


def test_the_picture_of_speed_has_the_figures_of_the_table(tmp_path: Path) -> None:
    rows = read_rows(README)
    assert {row.machine.split()[0] for row in rows} == {"AMD", "Intel", "NVIDIA"}
    words = re.findall(r">([^<>]+)</text>", (DOCS / "images" / "speed.svg").read_text(encoding="utf-8"))
    for row in rows:
        assert row.machine in words and row.name in words, "make pictures draws it anew"
        assert f"{row.milliseconds} ms" in words, "make pictures draws it anew"
        assert not row.ratio or row.ratio in words, "make pictures draws it anew"
    assert len([word for word in words if word.endswith(" ms")]) == len(rows)
    draw(rows, tmp_path / "a.svg")
    draw(rows, tmp_path / "b.svg")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_a_readme_without_the_table_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a table of milliseconds"):
        read_rows("## Speed\n\nFast.\n")
