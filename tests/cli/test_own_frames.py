# SPDX-License-Identifier: Apache-2.0
"""`--frames package.module:callable` gives the commands what files of the same frames give."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import MODEL, invoke, invoke_json

Files = dict[str, Path]


@pytest.mark.parametrize("name", ["pairs", "generator"])
def test_calibrate_and_compare(files: Files, tmp_path: Path, name: str) -> None:
    frames = ("--frames", f"tests.lidar.given:{name}", "--limit", 1)
    own, file = tmp_path / "own.json", tmp_path / "file.json"
    invoke("calibrate", "--model", MODEL, *frames, "-o", own, "--quiet")
    invoke("calibrate", "--model", MODEL, "--frames", files["features"], "-o", file, "--quiet")
    layers = [json.loads(path.read_text())["layers"] for path in (own, file)]
    assert layers[0] == layers[1]
    compared = ("--model", MODEL, "--cache", files["cache"], *frames)
    assert invoke_json("compare", files["int8"], *compared)["identical"]


def test_commands_that_read_frames_several_times(tmp_path: Path) -> None:
    frames = ("--frames", "tests.lidar.given:generator")
    found = invoke_json("sensitivity", MODEL, *frames, "--limit", 2, "--quiet")
    assert found["frames"] == 2
    auto = ("--precision", "auto", "--budget", "sqnr>=10", "--improve", "bias")
    found = invoke_json("calibrate", "--model", MODEL, *frames, "-o", tmp_path / "c.json", *auto, "--quiet")
    assert found["frames"] == 4 and found["choice"]["frames"] == 4


@pytest.mark.parametrize("name", ["pairs", "generator"])
def test_report(files: Files, tmp_path: Path, name: str) -> None:
    own = f"tests.lidar.given:{name}"
    page = tmp_path / "page.html"
    arguments = ("--limit", 2, "--no-sensitivity", "--repeat", 1, "-o", page)
    invoke("report", files["int8"], "--frames", own, *arguments)
    assert f"{own}, frame 1" in page.read_text(encoding="utf-8")


def test_retrofit(files: Files, tmp_path: Path) -> None:
    arguments = ("--frames", "tests.lidar.given:generator", "-o", tmp_path / "x.onnx", "--quiet")
    auto = ("--precision", "auto", "--budget", "sqnr>=10")
    assert invoke_json("retrofit", files["float"], *arguments, *auto)["frames"] == 4
