# SPDX-License-Identifier: Apache-2.0
"""One settings file for calibrate, export, run and compare: where values come from, and what is refused."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import MODEL, invoke, invoke_json

Files = dict[str, Path]

TOML = """
model = "tests.quant.graphs:residual"
frames = "frames"
cache = "made/scn.json"
onnx = "made/scn.onnx"

[calibrate]
method = "max"
precision = { "conv1.*" = "fp16" }

[compare]
limit = 2
"""


@pytest.fixture
def folder(files: Files, tmp_path: Path) -> Path:
    """A folder with settings, the frames that they name, and a place for files."""
    (tmp_path / "frames").symlink_to(files["frames"])
    (tmp_path / "made").mkdir()
    (tmp_path / "scn.toml").write_text(TOML, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("kind", ["toml", "yaml", "json"])
def test_model_and_files_are_named_once(folder: Path, kind: str) -> None:
    """Each command reads the file; what it says last is the command that follows."""
    path = folder / f"scn.{kind}"
    content: dict[str, Any] = {
        "model": MODEL,
        "frames": "frames",
        "cache": "made/scn.json",
        "onnx": "made/scn.onnx",
        "calibrate": {"method": "max", "precision": ["conv1.*=fp16"]},
        "compare": {"limit": 2},
    }
    if kind != "toml":
        path.write_text(json.dumps(content), encoding="utf-8")  # which YAML reads too
    text = invoke("calibrate", "--settings", path).output
    cache = json.loads((folder / "made" / "scn.json").read_text(encoding="utf-8"))
    assert cache["method"] == "max" and cache["layers"]["conv1.0.conv1"]["precision"] == "fp16"
    for command in ("export", "compare"):
        line = text.rstrip().splitlines()[-1]
        assert line == f"next: scn-fx {command} --settings {path}"
        text = invoke(*shlex.split(line.removeprefix("next: scn-fx "))).output
    assert "every bit is the same (2 frame(s)" in text
    found = invoke_json("run", "--settings", path)
    assert found["file"] == str(folder / "made" / "scn.onnx") and "the first of" in found["frame"]
    assert invoke_json("sensitivity", "--settings", path, "--quiet")["frames"] == 2


def test_retrofit_writes_the_file_that_run_and_report_read(folder: Path, files: Files) -> None:
    path = folder / "scn.toml"
    path.write_text(
        'onnx = "made/scn.onnx"\nframes = "frames"\n[retrofit]\nmethod = "max"\n'
        '[report]\noutput = "made/page.html"\nrepeat = 1\nsensitivity = false\n',
        encoding="utf-8",
    )
    text = invoke("retrofit", files["float"], "--settings", path, "--quiet").output
    assert "method max" in text and text.rstrip().endswith(f"next: scn-fx run --settings {path}")
    text = invoke("run", "--settings", path).output
    assert text.rstrip().endswith(f"next: scn-fx report --settings {path}")
    assert f"saved {folder / 'made' / 'page.html'}" in invoke("report", "--settings", path).output
    assert "Missing argument 'FILE'" in invoke("report", code=2).output


def test_the_next_command_is_called_as_this_one(
    files: Files, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`make demo` runs a program that is not on PATH."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.argv", [".venv/bin/scn-fx"])
    arguments = (files["int8"], "--frames", files["frames"])
    words = " ".join(map(str, arguments))
    assert f"next: .venv/bin/scn-fx report {words}\n" in invoke("run", *arguments).output
    (tmp_path / "scn-fx").touch(0o755)
    assert f"next: scn-fx report {words}\n" in invoke("run", *arguments).output


def test_the_command_line_goes_first(folder: Path) -> None:
    settings = ("--settings", folder / "scn.toml")
    found = invoke_json(
        "calibrate",
        *settings,
        "--method",
        "mse",
        "--precision",
        "fp16",
        "--limit",
        1,
        "-o",
        folder / "own.json",
    )
    assert found["method"] == "mse" and found["frames"] == 1
    assert {row["precision"] for row in found["layers"]} == {"fp16"}
    assert not list((folder / "made").iterdir())
    own = invoke("export", *settings, "--cache", folder / "own.json", "-o", folder / "a b.onnx").output
    expected = f"'{folder / 'a b.onnx'}' --cache {folder / 'own.json'} --settings {folder / 'scn.toml'}"
    assert own.rstrip().endswith(f"next: scn-fx compare {expected}")
    invoke("export", *settings, "--float")
    assert invoke_json("run", folder / "a b.onnx", *settings)["file"] == str(folder / "a b.onnx")


def test_without_settings_the_next_command_has_the_options_that_name_the_model(
    files: Files, tmp_path: Path
) -> None:
    cache = tmp_path / "c.json"
    text = invoke(
        "calibrate",
        "--model",
        MODEL,
        "--frames",
        files["frames"],
        "-o",
        cache,
        "--grid",
        "0,0,0,12,12,5,1,1,1",
    ).output
    assert text.rstrip().endswith(
        f"next: scn-fx export --cache {cache} --model {MODEL} --grid 0,0,0,12,12,5,1,1,1"
    )


@pytest.mark.parametrize(
    ("text", "command", "match"),
    [
        ("modell = 'x'", "calibrate", "there is no option 'modell'. Did you mean 'model'?"),
        ("method = 'max'", "calibrate", "there is no option 'method'.*its table ([calibrate]"),
        (
            "[calibrate]\nmethods = 'max'",
            "calibrate",
            "in [calibrate], there is no option 'methods'. Did you mean 'method'?",
        ),
        ("[calibrate]\nmethod = 'best'", "calibrate", "[calibrate] method: 'best' is not one of"),
        ("[calibrate]\nlimit = 0", "calibrate", "[calibrate] limit: 0 is not in the range"),
        ("[calibrate]\nlimit = [1]", "calibrate", "[calibrate] limit: expected a text or number, got [1]"),
        ("native = 'yes'", "calibrate", "native: expected true or false, got 'yes'"),
        ("calibrate = 3", "run", "expected calibrate to be a table of options ([calibrate]), got 3"),
        ("model = ", "run", "expected a TOML file, got text that is none"),
        ("model = 'a'\nmodel = 'b'", "run", "expected a TOML file, got text that is none"),
        ("grid = '1,2'", "calibrate", "A grid in numbers has nine of them"),
    ],
)
def test_what_a_settings_file_cannot_say(folder: Path, text: str, command: str, match: str) -> None:
    path = folder / "bad.toml"
    path.write_text(text, encoding="utf-8")
    more = () if command == "run" else ("--model", MODEL, "--frames", folder / "frames")
    error = invoke(command, "--settings", path, *more, code=1).stderr
    for part in match.split(".*"):
        assert part in error
    assert error.count("\n") == 1 and (str(path) in error or "grid" in text)


def test_files_that_are_no_settings(folder: Path) -> None:
    for name, match in (("gone.toml", "but there is none"), ("a.ini", "*.toml, *.yaml, *.yml or *.json")):
        assert match in invoke("run", "--settings", folder / name, code=1).stderr
    (folder / "list.json").write_text("[1]", encoding="utf-8")
    assert (
        "expected names with values, got list"
        in invoke("run", "--settings", folder / "list.json", code=1).stderr
    )
    assert "Missing argument 'FILE'" in invoke("run", code=2).output
    assert "or --settings of a file that names onnx" in invoke("compare", code=2).output
    pair = ("a.npz", "b.npz", "--settings", folder / "scn.toml")
    assert "--settings goes with one ONNX file" in invoke("compare", *pair, code=2).output


def test_grids_and_files_are_relative_to_the_settings(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "grid.json").write_text(
        '{"point_range": [0, 0, 0, 13, 12, 8], "voxel_size": [1, 1, 1]}', encoding="utf-8"
    )
    for text in ("grid = 'grid.json'", "grid = [0, 0, 0, 13, 12, 8, 1, 1, 1]"):
        (folder / "scn.toml").write_text(text + TOML, encoding="utf-8")
        monkeypatch.chdir(folder / "made")
        found = invoke("calibrate", "--settings", "../scn.toml", code=1).stderr
        assert "The grid has 9 x 12 x 13" in found or "9 x 12 x 13 (z, y, x)" in found, found
