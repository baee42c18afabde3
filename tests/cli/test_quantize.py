# SPDX-License-Identifier: Apache-2.0
"""`scn-fx quantize` gives what its three commands give; Ctrl-C, and outputs that cannot be written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import scn_fx.exporting
import scn_fx.runtime
from scn_fx import cli
from tests.cli.conftest import MODEL, invoke, invoke_json
from tests.quant.graphs import frame

Files = dict[str, Path]
STOPPED = {"at": -1}
"""Before which frame the next pass is interrupted; -1 for none."""


def frames() -> Iterator[Any]:
    """Four frames, with Ctrl-C on the way."""
    for seed in range(4):
        if seed == STOPPED["at"]:
            raise KeyboardInterrupt
        yield frame(seed)


OWN = ("--frames", "tests.cli.test_quantize:frames")


def test_the_same_as_three_commands(files: Files, tmp_path: Path) -> None:
    cache, onnx = tmp_path / "c.json", tmp_path / "a.onnx"
    found = invoke_json(
        "quantize",
        "--model",
        MODEL,
        "--frames",
        files["frames"],
        "--method",
        "max",
        "--cache",
        cache,
        "-o",
        onnx,
    )
    assert json.loads(cache.read_text())["layers"] == json.loads(files["cache"].read_text())["layers"]
    nodes = [invoke_json("inspect", path)["nodes"] for path in (onnx, files["int8"])]
    assert nodes[0] == nodes[1]
    assert found["comparison"]["identical"] and found["comparison"]["frames"] == 1
    assert found["export"]["nodes"] == 7 and found["calibration"]["frames"] == 2
    text = invoke(
        "quantize", "--model", MODEL, *OWN, "--cache", cache, "-o", onnx, "--compare-limit", 2
    ).output
    assert "every bit is the same (2 frame(s)" in text and f"saved {cache} and {onnx}" in text
    assert text.rstrip().endswith(f"next: scn-fx run {onnx} --frames {OWN[1]}")


def test_settings_of_the_three_commands_count(tmp_path: Path) -> None:
    (tmp_path / "scn.toml").write_text(
        f'model = "{MODEL}"\nframes = "{OWN[1]}"\ncache = "c.json"\nonnx = "a.onnx"\n'
        '[calibrate]\nmethod = "max"\nlimit = 3\nresume = true\n'
        '[export]\nexporter = "torchscript"\n[compare]\nlimit = 2\nsqnr = 3\n[quantize]\nbins = 512\n',
        encoding="utf-8",
    )
    found = invoke_json("quantize", "--settings", tmp_path / "scn.toml")
    assert found["calibration"]["frames"] == 3 and found["calibration"]["method"] == "max"
    assert found["export"]["exporter"] == "torchscript" and found["export"]["file"] == str(
        tmp_path / "a.onnx"
    )
    assert found["comparison"]["frames"] == 2 and found["comparison"]["limits"]["sqnr_db"] == 3


def test_a_failed_comparison_exits_with_1_and_says_where_to_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scn_fx.runtime, "Engine", partial(scn_fx.runtime.Engine, precision="fp32"))
    files = ("--cache", tmp_path / "c.json", "-o", tmp_path / "a.onnx")
    text = invoke("quantize", "--model", MODEL, *OWN, *files, "--identical", code=1).output
    assert "FAILED at " in text
    expected = f"next: scn-fx sensitivity --cache {tmp_path / 'c.json'} --model {MODEL} --frames {OWN[1]}"
    assert text.rstrip().endswith(expected)


@pytest.mark.parametrize("command", ["calibrate", "quantize"])
def test_ctrl_c_keeps_what_was_counted_and_resume_goes_on(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "c.json"
    named = ("--cache", cache, "-o", tmp_path / "a.onnx") if command == "quantize" else ("-o", cache)
    arguments = (command, "--model", MODEL, *OWN, *named)
    monkeypatch.setitem(STOPPED, "at", 3)
    error = invoke(*arguments, code=130).stderr
    part = tmp_path / "c.json.part"
    assert error == f"Error: Interrupted. What was counted is kept in {part}; go on with --resume.\n"
    assert json.loads(part.read_text())["state"]["counted"] == 3
    assert not cache.exists()
    monkeypatch.setitem(STOPPED, "at", -1)
    found = invoke_json(*arguments, "--resume")
    assert found.get("calibration", found)["frames"] == 4 and not part.exists()
    whole = invoke_json("calibrate", "--model", MODEL, *OWN, "-o", tmp_path / "whole.json")
    assert found.get("calibration", found)["layers"] == whole["layers"]


def test_ctrl_c_before_and_behind_the_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "c.json"
    arguments = ("quantize", "--model", MODEL, *OWN, "--cache", cache, "-o", tmp_path / "a.onnx")
    monkeypatch.setitem(STOPPED, "at", 0)
    assert invoke(*arguments, code=130).stderr == "Error: Interrupted.\n"
    monkeypatch.setitem(STOPPED, "at", -1)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(scn_fx.exporting, "export_onnx", interrupted)
        error = invoke(*arguments, code=130).stderr
        assert f"The calibration is complete, in {cache}; go on with --resume" in error
        assert invoke("export", "--model", MODEL, "--cache", cache, "-o", tmp_path / "b.onnx", code=130)
    monkeypatch.setitem(STOPPED, "at", 4)
    assert invoke_json(*arguments, "--resume")["comparison"]["ok"]


def test_ctrl_c_while_the_commands_are_loaded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(name: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "find_spec", interrupted)
    with pytest.raises(SystemExit) as caught:
        cli.main(["env"])
    assert caught.value.code == 130 and capsys.readouterr().err == "Error: Interrupted.\n"


@pytest.mark.parametrize(
    ("named", "words"),
    [
        (("--cache", "gone/c.json"), "--cache gone/c.json cannot be written: its folder gone does not exist"),
        (("-o", "gone/a.onnx"), "--output gone/a.onnx cannot be written"),
        (("--cache", "x", "-o", "./x"), "--cache and --output are both x: name two files"),
    ],
)
def test_outputs_are_checked_before_the_first_frame(
    named: tuple[str, ...], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert words in invoke("quantize", "--model", "no.such:model", "--frames", "none", *named, code=1).stderr
    text = invoke("calibrate", "--model", "no.such:model", "--frames", "none", "-o", "gone/c", code=1).stderr
    assert "gone/c cannot be written" in text
