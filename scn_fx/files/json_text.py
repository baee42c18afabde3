# SPDX-License-Identifier: Apache-2.0
"""JSON texts, read strictly: what a reader would have to choose, guess or drop is refused."""

from __future__ import annotations

import json
import math
import re
from typing import Any

__all__ = ["DEEPEST", "LONGEST_NUMBER", "TextError", "decoded", "parse_json", "whole"]

DEEPEST = 64
"""Most nested lists and objects: far more than any file of ours has, far less than Python's stack."""
LONGEST_NUMBER = 64
"""Most characters of a number; float64 needs 24."""

_STRING_OR_BRACKET = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[\]{}]', re.DOTALL)


class TextError(ValueError):
    """The text is no JSON or YAML, or more than one thing; says what is wrong with it."""


def parse_json(data: bytes) -> Any:
    """The content of a JSON text in UTF-8, with or without a byte order mark.

    Raises TextError for text that is none, and for what JSON's own rules or Python's reader leave open: an
    object with a key twice, NaN and Infinity, numbers beyond float64 or of more than 64 characters, more than
    64 levels.
    """
    text = decoded(data)
    _check_depth(text)
    try:
        return json.loads(
            text,
            object_pairs_hook=_object,
            parse_constant=_refuse_constant,
            parse_int=whole,
            parse_float=_number,
        )
    except TextError:
        raise
    except (ValueError, RecursionError, MemoryError) as error:
        raise TextError(str(error) or type(error).__name__) from error


def decoded(data: bytes) -> str:
    """The text of UTF-8 bytes, without a byte order mark."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TextError(f"it is not UTF-8: {error.reason} at byte {error.start}") from error


def whole(text: str) -> int:
    """A whole number in decimal digits, if it is not absurdly long."""
    if len(text) > LONGEST_NUMBER:
        raise TextError(f"a number of {len(text)} characters ({text[:12]}...); {LONGEST_NUMBER} are the most")
    return int(text)


def _number(text: str) -> float:
    if len(text) > LONGEST_NUMBER:
        raise TextError(f"a number of {len(text)} characters ({text[:12]}...); {LONGEST_NUMBER} are the most")
    value = float(text)
    if not math.isfinite(value):
        raise TextError(f"the number {text} is beyond float64")
    return value


def _refuse_constant(text: str) -> Any:
    raise TextError(f"{text} is no number of JSON")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise TextError(f"an object has the key {twice[:60]!r} twice; remove one of the two")
    return found


def _check_depth(text: str) -> None:
    """Python's reader is recursive: it may end a process that has raised the recursion limit."""
    depth = 0
    for match in _STRING_OR_BRACKET.finditer(text):
        mark = match[0]
        if mark in ("[", "{"):
            depth += 1
            if depth > DEEPEST:
                raise TextError(f"it has more than {DEEPEST} levels of lists and objects in each other")
        elif mark in ("]", "}"):
            depth -= 1
