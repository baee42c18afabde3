# SPDX-License-Identifier: Apache-2.0
"""Help, errors and exit codes of the command as a whole."""

from __future__ import annotations

import ast
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import click
import numpy as np
import pytest

import scn_fx
from scn_fx import cli
from scn_fx.cli.app import COMMANDS, command
from tests.cli.conftest import invoke
from tests.oracle import builder


def test_help_lists_every_command() -> None:
    text = invoke("--help").output
    for name, (_, _, summary) in COMMANDS.items():
        assert name in text and summary in text


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help_with_its_summary(name: str) -> None:
    text = invoke(name, "--help").output
    assert f"scn-fx {name}" in text and "--json" in text
    if name != "calibrate":  # that one is also `python -m quant`
        beginning = " ".join(COMMANDS[name][2].split()[:4]).lower()
        assert beginning in " ".join(text.split()).lower(), "summary and docstring say the same"


def test_help_is_fast_and_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom scn_fx.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'numpy', 'torch', 'spconv', 'onnx', 'matplotlib', 'modelopt', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    # 0.2 s on a free machine; the limit leaves room for a busy one.
    assert time.perf_counter() - began < 2.0


def test_version() -> None:
    import scn_fx

    assert invoke("--version").output == f"scn-fx, version {scn_fx.__version__}\n"


def test_usage_errors_exit_with_2() -> None:
    assert "No such command" in invoke("nonsense", code=2).output
    assert "Missing argument" in invoke("inspect", code=2).output
    assert "No such option" in invoke("env", "--nonsense", code=2).output


def test_our_errors_are_one_line_and_exit_with_1(tmp_path: Path) -> None:
    text = invoke("inspect", tmp_path / "none.onnx", code=1).stderr
    assert text.startswith("Error: ") and "none.onnx" in text and text.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ModuleNotFoundError("No module named 'onnx'", name="onnx.helper"), ["'onnx'", "scn-fx[export]"]),
        (FileNotFoundError(2, "No such file or directory", "a/b.npz"), ["a/b.npz", "No such file"]),
        (RuntimeError("can't start new thread"), ["no more threads", "ulimit -u"]),
    ],
)
def test_missing_packages_and_files_are_told_in_one_line(
    error: Exception, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    @click.command()
    def failing() -> None:
        raise error

    monkeypatch.setattr(command, "get_command", lambda ctx, name: failing)
    text = invoke("env", code=1).stderr
    assert text.startswith("Error: ") and text.count("\n") == 1
    assert all(word in text for word in words)


def test_other_errors_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    def failing() -> None:
        raise ModuleNotFoundError("No module named 'mypackage'", name="mypackage")

    monkeypatch.setattr(command, "get_command", lambda ctx, name: failing)
    with pytest.raises(ModuleNotFoundError):
        command.main(["env"], standalone_mode=False)


@pytest.mark.parametrize("package", ["click", "rich"])
def test_without_click_or_rich_one_line_names_the_extra(
    package: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "find_spec", lambda name: None if name == package else object())
    with pytest.raises(SystemExit) as caught:
        cli.main(["--help"])
    text = capsys.readouterr().err
    assert (
        caught.value.code == 1 and repr(package) in text and "scn-fx[cli]" in text and text.count("\n") == 1
    )


def test_the_entry_point_runs(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["env", "--json"])
    assert caught.value.code == 0 and '"cuda"' in capsys.readouterr().out


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path: Path) -> None:
    names = [f"layer_{i}" for i in range(400)]
    weight, bias = np.zeros((1, 1, 1, 1, 1), np.float16), np.zeros(1, np.float16)
    nodes = [
        builder.convolution(
            name, "x" if i == 0 else names[i - 1] + "_y", name + "_y", weight, bias,
            input_shape=(4, 4, 4), output_shape=(4, 4, 4), subm=True,
        )
        for i, name in enumerate(names)
    ]  # fmt: skip
    builder.build_onnx(*nodes, input_name="x", path=tmp_path / "long.onnx")
    shell = f"{sys.executable} -m scn_fx.cli inspect {tmp_path / 'long.onnx'} | head -1"
    done = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 1


def test_no_option_is_spelled_twice() -> None:
    files = sorted((Path(scn_fx.__file__).parent / "cli").glob("*.py"))
    calls = [node for path in files for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
    spelled = [
        ast.unparse(node)
        for node in calls
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "click.option"
    ]
    assert len(spelled) > 30
    assert [text for text, times in Counter(spelled).items() if times > 1] == []
