# SPDX-License-Identifier: Apache-2.0
"""The pages are true: examples run, links lead somewhere, and the reference has every command and option."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

from scn_fx.cli.app import COMMANDS, command

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))


def blocks(page: str) -> list[str]:
    """The Python examples of a page."""
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.filterwarnings("ignore")
def test_the_tutorial_and_the_comparison_guide_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in blocks("tutorial.md"):
        exec(block, names)
    printed = capsys.readouterr().out
    assert "CenterPointEncoder" in printed and "conv1.0.add add" in printed and "2 frames, int8" in printed
    assert "every bit is the same" in printed and "torch.float16 (1, 16, 8, 8)" in printed
    assert re.search(r"cosine 0\.9\d+, SQNR \d\d\.\d dB", printed)
    for block in blocks("how-to/compare.md"):
        exec(block, names)
    printed = capsys.readouterr().out
    assert printed.startswith("True True\n") and "> 75% of max" in printed
    assert re.search(r"extra_conv\.0 +\d\d\.\d dB", printed)


def test_the_guide_to_forwards_that_make_their_grid_runs(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    exec(blocks("how-to/capture-a-model.md")[0], names)
    assert "makes a number of the frame" in capsys.readouterr().out
    assert names["result"].shape == (len(names["coors"]), 16)


@pytest.mark.filterwarnings("ignore")
def test_the_guides_to_detectors_and_heads_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in blocks("how-to/detector.md"):
        exec(block, names)
    printed = capsys.readouterr().out.splitlines()
    assert printed[-2:] == ["(1, 3, 8, 8) torch.float32", "(1, 32, 8, 8)"]
    for block in blocks("how-to/head.md"):
        exec(block, names)
    assert capsys.readouterr().out.splitlines()[-1] == "(1, 3, 8, 8) True"
    expected = names["head"](names["bev"]).detach().numpy()
    np.testing.assert_allclose(names["scores"], expected, rtol=1e-3, atol=1e-4)


def anchors(page: Path) -> set[str]:
    """What links to a page may end in: its headings in small letters, without marks, hyphens for spaces."""
    headings = re.findall(r"^#+ (.*)", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", ROOT / "CHANGELOG.md", *PAGES], ids=lambda page: page.stem
)
def test_links_lead_to_pages_and_headings(page: Path) -> None:
    for target, _, anchor in re.findall(r"\]\(([^)#]*)(#([^)]*))?\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            found = page.parent / target if target else page
            assert found.exists(), target
            assert not anchor or anchor in anchors(found), f"{target}#{anchor}"


def test_the_index_links_every_page() -> None:
    index = (DOCS / "README.md").read_text(encoding="utf-8")
    modules = (DOCS / "reference" / "python.md").read_text(encoding="utf-8")
    for page in PAGES:
        name = str(page.relative_to(DOCS))
        if name.startswith("reference/python/"):
            assert f"]({name.removeprefix('reference/')})" in modules, name
        else:
            assert name in ("README.md", "index.md") or name in index, name


def test_the_reference_has_every_command_and_option() -> None:
    text = (DOCS / "reference" / "cli.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE))
    context = click.Context(command)
    for name in COMMANDS:
        found = command.get_command(context, name)
        assert found is not None
        for option in found.params:
            if isinstance(option, click.Option) and "--help" not in option.opts:
                assert all(f"`{word}" in sections[name] for word in option.opts), f"{name} {option.opts}"
