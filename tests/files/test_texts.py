# SPDX-License-Identifier: Apache-2.0
"""JSON and YAML are read strictly: what a reader would have to choose or guess is refused."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scn_fx.files.json_text import TextError, parse_json
from scn_fx.files.yaml_text import parse_yaml

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(VALUES)
def test_what_json_writes_comes_back(value: Any) -> None:
    for options in ({}, {"indent": 1}, {"ensure_ascii": False}):
        text = json.dumps(value, **options)
        data = text.encode("utf-8", "surrogatepass")
        if "\ud800" <= max(text) <= "\udfff":
            continue
        assert parse_json(data) == value == parse_json(b"\xef\xbb\xbf" + data)


REFUSED = {
    "": "Expecting value",
    "\ufeff": "Expecting value",
    "[1": "Expecting",
    "[1] 2": "Extra data",
    '{"a": 1, "a": 1}': "has the key 'a' twice",
    '{"x": [{"b": 1, "\\u0062": 2}]}': "has the key 'b' twice",
    "NaN": "NaN is no number",
    "[-Infinity]": "-Infinity is no number",
    "1e999": "beyond float64",
    "-1e999": "beyond float64",
    "1" * 5000: "a number of 5000 characters",
    "0." + "1" * 5000: "a number of 5002 characters",
    "[" * 100_000: "more than 64 levels",
    '{"a":' * 100_000: "more than 64 levels",
    "[" * 65 + "]" * 65: "more than 64 levels",
    '"\\': "Unterminated|Invalid",
    '"a\nb"': "control character",
}


@pytest.mark.parametrize("text", REFUSED)
def test_json_that_is_refused(text: str) -> None:
    with pytest.raises(TextError, match=REFUSED[text]):
        parse_json(text.encode())


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "latin-1"])
def test_other_encodings_are_refused(encoding: str) -> None:
    data = '{"ä": 1}'.encode(encoding)
    for parse in (parse_json, parse_yaml):
        with pytest.raises(TextError):
            parse(data)


def test_brackets_in_strings_are_no_levels() -> None:
    text = json.dumps(["[" * 1000, '\\"' + "{" * 1000, {"[" * 100: "\\"}])
    assert parse_json(text.encode()) == json.loads(text)
    assert parse_json(("[" * 64 + "]" * 64).encode())


def test_a_raised_recursion_limit_does_not_end_the_process() -> None:
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(10**6)
    try:
        for parse in (parse_json, parse_yaml):
            with pytest.raises(TextError, match="more than 64 levels"):
                parse(b"[" * 500_000)
    finally:
        sys.setrecursionlimit(before)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64) | st.text(st.characters(max_codepoint=0xD7FF)),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text("abc<é ", min_size=1), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(PLAIN)
def test_json_texts_are_yaml_texts(value: Any) -> None:
    assert parse_yaml(json.dumps(value).encode()) == value


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGES = "a: &a {x: 1}\n" + "".join(
    f"{b}: &{b}\n  <<: [{', '.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
YAML_REFUSED = {
    "a: 1\na: 2": "has the key 'a' twice",
    "x: {b: 1, b: 1}": "has the key 'b' twice",
    "&a [*a]": "an alias contains itself",
    "&a {b: *a}": "an alias contains itself",
    "a: &a {<<: *a}": "an alias contains itself",
    BOMB: "more than 100000 values",
    MERGES: "more than 100000 values",
    "0x" + "f" * 5000: "a number of 5002 characters",
    "1" * 5000: "a number of 5000 characters",
    "2001-99-99": "month must be",
    "!!python/object/apply:os.system [x]": "could not determine a constructor",
    "? [1]\n: 2": "unhashable",
    "a: [": "while parsing",
    "- " * 5000: "more than 64 levels",
    "a\x00b": "special characters",
    "--- a\n--- b": "another document",
}


@pytest.mark.parametrize("text", YAML_REFUSED, ids=lambda text: text[:20])
def test_yaml_that_is_refused(text: str) -> None:
    began = time.monotonic()
    with pytest.raises(TextError, match=YAML_REFUSED[text]):
        parse_yaml(text.encode())
    assert time.monotonic() - began < 30, "an hour, were its aliases written out"


def test_yaml_that_is_taken() -> None:
    assert parse_yaml(b"") is None and parse_yaml(b"# nothing\n") is None
    text = b"base: &base {a: 1, b: [1.5, x]}\nother: {<<: *base, a: 2}\nrange: &r [0, 1]\nagain: *r\n"
    assert parse_yaml(text) == {
        "base": {"a": 1, "b": [1.5, "x"]},
        "other": {"a": 2, "b": [1.5, "x"]},
        "range": [0, 1],
        "again": [0, 1],
    }
