# SPDX-License-Identifier: Apache-2.0
"""Commands in an ASCII locale, with names of any bytes, with pipes and devices for files."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from scn_fx.cli.arrays import read_result
from scn_fx.quant.console import one_line
from tests.cli.conftest import MODEL, invoke, invoke_json

Files = dict[str, Path]

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LANG": "C"}


def shell(command: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run a shell's command, in which `scn-fx` is the command of this source tree, in `folder`."""
    root = str(Path(__file__).parents[2])
    start = f'scn-fx() {{ "{sys.executable}" -m scn_fx.cli "$@"; }}\n'
    variables = {**os.environ, "PYTHONPATH": root, **environment}
    return subprocess.run(["bash", "-c", start + command], cwd=folder, capture_output=True, env=variables)


@pytest.mark.parametrize("environment", [ASCII, {"PYTHONUTF8": "1"}], ids=str)
def test_names_and_characters_in_every_locale(
    files: Files, tmp_path: Path, environment: dict[str, str]
) -> None:
    """File names come out as they went in, arrows and the like as far as the locale has them."""
    names = ["modèle.onnx".encode(), b"mod\xe8le \xff.onnx"]
    for name in names:
        path = tmp_path / os.fsdecode(name)
        path.write_bytes(files["int8"].read_bytes())
        command = os.fsdecode(b"scn-fx inspect '" + name + b"' && scn-fx inspect '" + name + b".gone'")
        done = shell(command, tmp_path, **environment)
        assert done.returncode == 1, done.stderr
        assert name in done.stdout and name + b".gone: expected an ONNX file" in done.stderr
        assert b"Traceback" not in done.stderr and b"subm conv + ReLU" in done.stdout
        if environment is ASCII:
            assert b"fp16 -> int8" in done.stdout
    frame = f"--features '{files['features']}' --indices '{files['indices']}'"
    done = shell(f"scn-fx run modèle.onnx {frame} -o résultat.npz", tmp_path, **environment)
    assert done.returncode == 0, done.stderr
    assert read_result(str(tmp_path / "résultat.npz")).values.any()


def test_models_and_points_from_pipes(files: Files, tmp_path: Path) -> None:
    frame = f"--features '{files['features']}' --indices '{files['indices']}'"
    done = shell(
        f"scn-fx inspect <(cat '{files['int8']}') && cat '{files['int8']}' | scn-fx run /dev/stdin {frame}",
        tmp_path,
    )
    assert done.returncode == 0 and b"output" in done.stdout, done.stderr
    done = shell("mkfifo pipe && scn-fx inspect pipe", tmp_path)
    assert done.returncode == 1 and b"pipe: expected an ONNX file, got a named pipe" in done.stderr


def test_results_into_devices(files: Files, tmp_path: Path) -> None:
    found = invoke_json("export", "--model", MODEL, "--float", "-o", "/dev/null")
    assert found["nodes"] == 7 and stat.S_ISCHR(os.stat("/dev/null").st_mode)
    error = invoke("export", "--model", MODEL, "--float", "-o", "/dev/full", code=1).stderr
    assert "No space left on device. Free space" in error


def test_names_in_a_file_move_no_cursor_and_are_no_markup(files: Files, tmp_path: Path) -> None:
    model = onnx.load(str(files["int8"]))
    for node, name in zip(
        model.graph.node, ("[/red]", "\x1b[2J\x07", "[bold]x[/]", ":smile:", "a\nb"), strict=False
    ):
        node.name = name
    model.metadata_props.add(key="a\x1bb", value="1\r2")
    path = tmp_path / "x.onnx"
    onnx.save(model, str(path))
    text = invoke("inspect", path).output
    for shown in ("[/red]", r"\x1b[2J\x07", "[bold]x[/]", ":smile:", r"a\nb", r"a\x1bb = 1\r2"):
        assert shown in text, shown
    assert "\x1b" not in text


def test_one_line() -> None:
    assert one_line("a b\tc\n\x1b[1mé→\udcff\u2028") == "a b\\tc\\n\\x1b[1mé→\udcff\\u2028"


def test_a_result_that_is_not_finished_leaves_the_old_one(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = ("--features", files["features"], "--indices", files["indices"])
    out = tmp_path / "out.npz"
    invoke("run", files["int8"], *frame, "-o", out)
    before = out.read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    error = invoke("run", files["int8"], *frame, "-o", out, code=1).stderr
    assert error.startswith(f"Error: {out} cannot be written: No space left on device. Free space")
    assert out.read_bytes() == before and os.listdir(tmp_path) == ["out.npz"]
