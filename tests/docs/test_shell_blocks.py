# SPDX-License-Identifier: Apache-2.0
"""Shell blocks of the pages: each command exists and has the options that it is given; the guide's run."""

from __future__ import annotations

import contextlib
import io
import re
import runpy
import sys
from functools import cache
from pathlib import Path

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from scn_fx.cli.app import COMMANDS, command
from scn_fx.lidar import write_tensor
from scn_fx.zoo import demo_frame
from tests.docs.pages import ROOT, SHELL, Block, blocks, command_lines, every_page

GUIDE = "docs/how-to/find-an-accuracy-bug.md"
OTHERS = {
    *("pip", "git", "cmake", "mkdir", "cd", "docker", "cibuildwheel", "auditwheel"),
    *("./fuzz_onnx", "build/example/run_onnx", "build/example/points_to_bev"),
}
"""Programs that are not ours to check; tests/test_cpp_example.py builds as docs/how-to/cpp.md says."""

FOUND = [block for page in every_page() for block in blocks(page) if block.language in SHELL]


@cache
def help_of(module: str, subcommand: str | None) -> str:
    """What `python -m MODULE [SUBCOMMAND] --help` prints."""
    text = io.StringIO()
    before = sys.argv
    sys.argv = [module, *([subcommand] if subcommand else []), "--help"]
    try:
        with contextlib.redirect_stdout(text), pytest.raises(SystemExit) as left:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        sys.argv = before
    assert left.value.code in (0, None), f"{module} {subcommand}"
    return text.getvalue()


def options(words: list[str]) -> set[str]:
    return {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}


def check(words: list[str], makefile: str) -> None:
    """Fails if a command is not what its program takes."""
    program, *rest = words
    if program == "torchrun":
        program, rest = "python", rest[1:]
    if program == "scn-fx":
        assert rest and rest[0] in COMMANDS, words
        found = command.get_command(click.Context(command), rest[0])
        assert found is not None
        known = {option for made in found.params for option in (*made.opts, *made.secondary_opts)}
        assert options(rest[1:]) <= known, words
    elif program == "make":
        assert re.search(rf"^(\w+ )*{rest[0]}( \w+)*:", makefile, re.MULTILINE), words
    elif program == "python" and rest[0] == "-m":
        module, arguments = rest[1], rest[2:]
        if module in ("build", "timeit"):
            return
        named = arguments[0] if module == "benchmarks" and not arguments[0].startswith("-") else None
        text = help_of(module, named)
        missing = {option for option in options(arguments) if not re.search(rf"{option}\b", text)}
        assert missing == set(), words
    else:
        assert program in OTHERS, words


@pytest.mark.parametrize("page", sorted({block.page for block in FOUND}))
def test_commands_exist_and_have_their_options(page: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    lines = [words for block in FOUND if block.page == page for words in command_lines(block)]
    assert lines
    for words in lines:
        check(words, makefile)


@pytest.mark.parametrize(
    "line",
    [
        "scn-fx calibrat",
        "scn-fx run a.onnx --feature x",
        "make everything",
        "python -m benchmarks --fast",
        "sudo x",
    ],
)
def test_a_wrong_command_is_found(line: str) -> None:
    (words,) = command_lines(Block("", "sh", True, line))
    with pytest.raises(AssertionError):
        check(words, (ROOT / "Makefile").read_text(encoding="utf-8"))


MODEL = """
from scn_fx.zoo import CenterPointEncoder, demo_frame, randomise_weights

def encoder():
    frame = demo_frame(0, 1000, grid=(64, 64, 40))
    model = CenterPointEncoder(5, (4, 8, 8, 8), grid=(64, 64, 40), bias=False)  # spconv's CPU build has none
    randomise_weights(model, *frame)
    return model, model.arguments(*frame), 0
"""


@pytest.fixture
def guided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the guide needs: a model of one's own, frames, the exported file, what the framework computed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "mypackage").mkdir()
    (tmp_path / "mypackage" / "__init__.py").touch()
    (tmp_path / "mypackage" / "models.py").write_text(MODEL)
    (tmp_path / "frames").mkdir()
    for seed in range(3):
        features, indices = demo_frame(seed, 1000, grid=(64, 64, 40))
        write_tensor(f"frames/{seed}.features.tensor", features.numpy())
        write_tensor(f"frames/{seed}.indices.tensor", indices.numpy())
    names: dict[str, object] = {}
    exec(MODEL, names)
    model, _, _ = names["encoder"]()  # type: ignore[operator]
    features, indices = demo_frame(0, 1000, grid=(64, 64, 40))
    given = {"model": model, "args": model.arguments(features.float(), indices), "torch": torch}
    (block,) = (block for block in blocks(GUIDE) if block.language == "python")
    exec(block.text, given)
    own = ["--model", "mypackage.models:encoder"]
    for arguments in (
        ["calibrate", *own, "--frames", "frames", "-o", "scn.calibration.json", "--quiet"],
        ["export", *own, "--cache", "scn.calibration.json", "--exporter", "torchscript"],
    ):
        done = CliRunner().invoke(command, arguments)
        assert done.exit_code == 0, done.output
    return tmp_path


@pytest.mark.filterwarnings("ignore")
def test_the_guide_to_accuracy_bugs_runs(guided: Path) -> None:
    commands = [words for block in blocks(GUIDE) if block.language == "sh" for words in command_lines(block)]
    assert len(commands) == 11
    printed = []
    for words in commands:
        if "program.npz" in words:
            Path("program.npz").write_bytes(Path("int8.npz").read_bytes())
        done = CliRunner().invoke(command, words[1:])
        assert done.exit_code == 0, f"{words}: {done.output}"
        printed.append(done.output)
    text = "\n".join(printed)
    for look in ("every bit is the same", "SQNR", "scn_fx.calibration.frames", "all together", "equal "):
        assert look in text, f"the guide says to look at {look!r}"

    # and the answer no is an exit code of 1
    dense = np.load("spconv.npz")["dense"]
    np.savez("spconv.npz", dense=1.05 * dense)
    np.savez("program.npz", dense=np.load("int8.npz")["dense"][:, :, ::-1])
    first, *_, last = (words for words in commands if words[1] == "compare")
    for words in (first, last):
        assert CliRunner().invoke(command, words[1:]).exit_code == 1
