# SPDX-License-Identifier: Apache-2.0
"""The directive `cpp-header`: the declarations of a public C++ header with the comments that stand at them.

    .. cpp-header:: scn_fx/engine.h

It reads the style of scn_fx/csrc/include alone: `///` before a declaration or `//` behind it says what it
is, a statement begins on a line of its own. That spares a build of the site Doxygen; what the style does not
cover is an error that names the statement, and Sphinx's own C++ parser checks each declaration.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

__all__ = ["INCLUDE", "Declaration", "HeaderError", "read_header", "setup"]

INCLUDE = Path(__file__).parents[2] / "scn_fx" / "csrc" / "include"


class HeaderError(ValueError):
    """A header is not written as this reader expects."""


@dataclass(frozen=True)
class Declaration:
    """One declaration as Sphinx's C++ domain takes it."""

    kind: str
    """Name of the directive: "class", "function", "member", …; "remark" for a comment that stands alone."""
    signature: str
    text: str
    """What its comments say."""
    members: tuple[Declaration, ...] = ()


def read_header(path: Path) -> tuple[str, list[Declaration]]:
    """The comment at the top of a header, and what it declares in its namespace."""
    lines = path.read_text(encoding="utf-8").splitlines()
    end = next((n for n, line in enumerate(lines) if not line.startswith("//")), len(lines))
    head = "\n".join(line.removeprefix("//").removeprefix(" ") for line in lines[1:end])
    opened = [n for n, line in enumerate(lines) if re.fullmatch(r"namespace [\w:]+ \{", line)]
    closed = [n for n, line in enumerate(lines) if line.startswith("}  // namespace")]
    if not opened and not closed and any(line.startswith("#define") for line in lines):
        return head, []  # macros alone
    if len(opened) != 1 or len(closed) != 1:
        raise HeaderError(
            f"{path}: expected one line 'namespace NAME {{' and one line '}}  // namespace NAME', "
            f"got {len(opened)} and {len(closed)}."
        )
    try:
        return head, list(_declarations(lines[opened[0] + 1 : closed[0]]))
    except HeaderError as error:
        raise HeaderError(f"{path}: {error}") from error


def _declarations(lines: Iterable[str]) -> Iterator[Declaration]:
    """What the lines of a namespace or of a class declare, its private part left out."""
    above: list[str] = []
    remark: list[str] = []
    statement: list[str] = []
    depth = 0
    for line in (*lines, ""):
        code, slashes, comment = line.strip().partition("//")
        if not statement and not code:
            if slashes and comment.startswith("/"):
                above.append(comment[1:].strip())
            elif slashes:
                remark.append(comment.strip())
            elif remark:
                yield Declaration("remark", "", " ".join(remark))
                remark = []
            continue
        if not statement and (code.startswith("#") or code == "public:"):
            continue
        if not statement and code in ("private:", "protected:"):
            return
        statement.append(line.strip())
        depth += code.count("{") - code.count("}")
        if depth == 0 and code.rstrip().endswith((";", "}")):
            yield from _declaration(statement, " ".join(above))
            above, remark, statement = [], [], []
    if statement:
        raise HeaderError(
            f"expected the end of the statement that begins with {statement[0]!r}, got the end."
        )


def _declaration(lines: list[str], text: str) -> Iterator[Declaration]:
    """The declarations of one statement: several for `int a, b;`, none for what no caller uses."""
    pairs = [line.partition("//")[::2] for line in lines]
    code = " ".join(part.strip() for part, _ in pairs).replace("SCN_FX_EXPORT ", "")
    if re.match(r"static_assert|(class|struct) \w+;|friend ", code):
        return
    opened = re.match(r"(enum class|struct|class) (\w+[^{;]*)\{", code)
    if opened:
        kind, name = opened[1], opened[2].strip()
        body = lines[1:-1]
        members = tuple(_enumerators(body)) if kind == "enum class" else tuple(_declarations(body))
        yield Declaration(kind.replace(" ", "-"), name, text, members)
        return
    behind = " ".join(comment.strip() for _, comment in pairs if comment)
    if code.startswith("using "):
        yield Declaration("type", code.removeprefix("using ").rstrip(";"), text or behind)
    elif re.match(r"[^={]*(operator\W+)?\(", code):
        signature = re.sub(r"^(static |inline |explicit )+", "", _without_body(code))
        yield Declaration("function", signature, text)
    else:
        yield from _variables(code, text, behind)


def _without_body(code: str) -> str:
    """A function's declaration: its parameters and what qualifies them, no initialisers, no body."""
    depth = 0
    for end, letter in enumerate(code):
        depth += (letter == "(") - (letter == ")")
        if depth == 0 and (letter in ";" or (letter in "{:" and ")" in code[:end])):
            return code[:end].strip()
    raise HeaderError(f"expected a function's declaration to end in ';' or a body, got {code!r}.")


def _variables(code: str, text: str, behind: str) -> Iterator[Declaration]:
    found = re.fullmatch(r"((?:const )?[\w:]+(?:<[^;]*>|\[\])*[*&]?) (\w+.*);", code)
    if found is None:
        raise HeaderError(f"expected a declaration in the style of the other headers, got {code!r}.")
    for declarator in re.split(r", (?![^{(]*[})])", found[2]):
        yield Declaration("member", f"{found[1]} {declarator}", text or behind)


def _enumerators(lines: Iterable[str]) -> Iterator[Declaration]:
    for line in lines:
        code, _, comment = line.strip().partition("//")
        if code:
            yield Declaration("enumerator", code.strip().rstrip(","), comment.strip())


def _rendered(declarations: Iterable[Declaration], indent: str = "") -> Iterator[str]:
    """reStructuredText of declarations."""
    for made in declarations:
        text = re.sub(r"([*|]|_(?!\w))", r"\\\1", made.text)
        if made.kind == "remark":
            yield from (indent + text, "")
            continue
        yield from (f"{indent}.. cpp:{made.kind}:: {made.signature}", "")
        if text:
            yield from (f"{indent}   {text}", "")
        yield from _rendered(made.members, indent + "   ")


class CppHeader(SphinxDirective):
    """Renders a header of scn_fx/csrc/include."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        path = INCLUDE / self.arguments[0]
        self.env.note_dependency(str(path))
        try:
            head, declarations = read_header(path)
        except (OSError, HeaderError) as error:
            raise self.error(str(error)) from error
        top = [f"``#include <{self.arguments[0]}>``", ""]
        for paragraph in re.split(r"\n\n", head):
            if paragraph.startswith("  "):
                top += [".. code-block:: cpp", "", *(f"   {line}" for line in paragraph.splitlines()), ""]
            else:
                top += [" ".join(paragraph.split()), ""]
        lines = [*top, ".. cpp:namespace:: scn", "", *_rendered(declarations)]
        return self.parse_text_to_nodes(StringList(lines, source=str(path)))


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_directive("cpp-header", CppHeader)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
