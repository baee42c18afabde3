# SPDX-License-Identifier: Apache-2.0
"""The code blocks of all pages, and the commands in them."""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ROOT", "SHELL", "Block", "blocks", "command_lines", "every_page"]

ROOT = Path(__file__).parents[2]
SHELL = ("sh", "console")

_BLOCK = re.compile(r"^( *)```(\w*)( no-run)?\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    """Path from the root, as "docs/tutorial.md"."""
    language: str
    run: bool
    """Whether the page does not say "no-run"."""
    text: str


def every_page() -> list[Path]:
    """Everything that a reader of this tree finds."""
    others = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "examples").rglob("*.md")]
    return [*others, *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path | str) -> list[Block]:
    """The blocks of a page, those within lists too."""
    path = ROOT / page
    found = _BLOCK.findall(path.read_text(encoding="utf-8"))
    name = path.relative_to(ROOT).as_posix()
    return [Block(name, language, not no_run, textwrap.dedent(text)) for _, language, no_run, text in found]


def command_lines(block: Block) -> Iterator[list[str]]:
    """The words of each command of a shell block; of a console with prompts, those behind a prompt."""
    lines = block.text.replace("\\\n", " ").splitlines()
    prompted = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    for line in prompted or lines:
        words = shlex.split(line, comments=True)
        while words and re.match(r"[A-Z_]+=", words[0]):
            words = words[1:]  # an environment variable for this command
        if words:
            yield words
