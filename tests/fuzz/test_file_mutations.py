# SPDX-License-Identifier: Apache-2.0
"""A short run of the mutator over every reader, and all files that it has found so far."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from scn_fx.errors import ScnError
from tests.fuzz.file_mutations import Slow, limits, run, try_file
from tests.fuzz.file_readers import READERS, Reader, readers
from tests.fuzz.mutators import DAMAGE

FOUND = sorted((Path(__file__).parent / "found_files").iterdir())
COUNT = {"checkpoint": 200, "checkpoint-legacy": 200, "checkpoint-ranges": 60, "grid-yaml": 200}
"""Executions of the slower readers; the others have 400."""


@pytest.fixture(scope="module")
def by_name(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Reader]:
    return {reader.name: reader for reader in readers(tmp_path_factory.mktemp("seeds"))}


@pytest.mark.parametrize("name", READERS)
def test_mutated_files(by_name: dict[str, Reader], tmp_path: Path, name: str) -> None:
    with limits():
        outcome = run(by_name[name], 0, 0, COUNT.get(name, 400), tmp_path)
    assert outcome.findings == []
    assert 0 < outcome.accepted < outcome.executions, "mutations that are all refused, or none, test little"


@pytest.mark.parametrize("file", FOUND, ids=lambda path: path.stem)
def test_what_was_found_before(by_name: dict[str, Reader], tmp_path: Path, file: Path) -> None:
    """All of these were taken wrongly, or refused with an error that is none of ours."""
    assert file.stat().st_size < 2048, "found files are kept small"
    reader = next(reader for name, reader in by_name.items() if file.name.startswith(name))
    with limits():
        _, text = try_file(reader, file.read_bytes(), tmp_path / file.name)
    assert text and not text.startswith("!"), text


def test_all_readers_are_listed(by_name: dict[str, Reader]) -> None:
    assert tuple(by_name) == READERS


def reader(read: object) -> Reader:
    return Reader("npy", ".npy", (b"abcdef" * 20,), read, DAMAGE, checked=True)  # type: ignore[arg-type]


def test_findings_are_found(tmp_path: Path) -> None:
    """Foreign errors, nameless ones, unnoticed damage and readers that hang."""

    def foreign(path: Path) -> None:
        if path.read_bytes() != b"abcdef" * 20:
            raise KeyError("x")

    def nameless(path: Path) -> None:
        if path.read_bytes() != b"abcdef" * 20:
            raise ScnError("something is wrong")

    def blind(path: Path) -> object:
        return path.read_bytes()

    for read, words in ((foreign, "KeyError"), (nameless, "not name the file"), (blind, "unnoticed")):
        outcome = run(reader(read), 0, 0, 20, tmp_path, tmp_path / "saved")
        assert outcome.findings and all(words in text for text in outcome.findings), words
        assert len(list((tmp_path / "saved").iterdir())) >= len(outcome.findings)

    def hang(path: Path) -> None:
        raise Slow

    assert try_file(reader(hang), b"", tmp_path / "x")[1].startswith("! more than")


def test_executions_follow_from_their_numbers(tmp_path: Path) -> None:
    """So that a finding can be made again from what is printed about it."""
    seen: list[bytes] = []

    def note(path: Path) -> object:
        seen.append(path.read_bytes())
        return None

    run(reader(note), 3, 0, 30, tmp_path)
    first, seen[:] = seen[:], []
    run(reader(note), 3, 10, 5, tmp_path)
    assert seen[1:] == first[11:16] and len(set(first)) > 20
    assert not np.array_equal(first[1:6], seen[1:6])
