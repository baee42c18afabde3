# SPDX-License-Identifier: Apache-2.0
"""Every message that a table "When it stops" shows is raised by what its page says, with these words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from scn_fx.errors import ScnError
from tests.docs.pages import every_page
from tests.docs.provocations import MESSAGES

_TABLE = re.compile(r"^\| message \|.*\n\|[-|]+\n((?:\|.*\n?)+)", re.MULTILINE)


def documented() -> Iterator[tuple[str, str]]:
    """(page, message) of all tables of messages."""
    for page in every_page():
        for rows in _TABLE.findall(page.read_text(encoding="utf-8")):
            for message in re.findall(r"^\| `(.+?)` \|", rows, re.MULTILINE):
                yield page.stem, message


def pattern(message: str) -> str:
    """What text says the message: three dots and numbers of a page stand for others."""
    escaped = re.escape(message).replace(r"\.\.\.", ".*")
    return re.sub(r"\d+(\\\.\d+)?", r"[\\d.e+-]+", escaped) if "lr" in message else escaped


def test_every_message_of_the_pages_is_provoked() -> None:
    found = list(documented())
    assert len(found) > 20 and set(found) == MESSAGES.keys()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("page", "message"), MESSAGES)
def test_a_message_comes_where_its_page_says(page: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ScnError) as raised:
        MESSAGES[page, message](tmp_path)
    text = str(raised.value).replace("\n", " ")
    assert re.search(pattern(message), text), text
