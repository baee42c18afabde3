# SPDX-License-Identifier: Apache-2.0
"""Errors of the commands give advice that can be followed, in one line, and before the work is done."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from scn_fx.lidar import read_tensor, synthetic_points
from tests.cli.conftest import MODEL, invoke, invoke_json

Files = dict[str, Path]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["export", "--model", "no.such:model", "--float", "-o", "gone/x.onnx"],
            "its folder gone does not exist. Make it",
        ),
        (
            ["export", "--model", "no.such:model", "--float", "-o", "."],
            "--output . .*it is a folder. Name a file",
        ),
        (["run", "gone.onnx", "-o", "gone/x.npz"], "its folder gone does not exist"),
        (["run", "."], r"\.: expected an ONNX file, got a folder. Name a file in it"),
        (["inspect", "."], r"\.: expected an ONNX file, got a folder. Name a file in it"),
        (["compare", "folder.onnx", "--model", MODEL], "folder.onnx: expected an ONNX file, got a folder"),
        (["demo", "--small", "--output-dir", "file.txt"], "--output-dir file.txt is a file"),
        (["run", "{int8}", "--features", "bad.npz", "--indices", "{indices}"], "zip archive.*write it again"),
        (["run", "{int8}", "--features", "bad.npy", "--indices", "{indices}"], "write plain arrays again"),
        (
            ["run", "{int8}", "--points", "cut.bin"],
            "no multiple of 20; float16x5.*of another kind: copy it again",
        ),
        (
            [
                "run",
                "{int8}",
                "--points",
                "nan.bin",
                "--format",
                "float32x5",
                "--grid",
                "0,0,0,12,12,5,1,1,1",
            ],
            r"^Error: nan.bin: Points must be finite.*Remove them with points.*write_tensor",
        ),
        (
            ["export", "--model", "second", "--float", "--grid", "500,500,0,501,501,1,.1,.1,.1"],
            "0 voxels lie in the grid 11 x 10 x 10 .*Give a checkpoint, or a grid with the sensor in it",
        ),
    ],
)
def test_errors(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    points = synthetic_points(sweeps=2)[::60]
    (tmp_path / "cut.bin").write_bytes(points.tobytes()[:-3])
    points[3, 0] = np.nan
    points.tofile("nan.bin")
    for name in ("bad.npz", "bad.npy", "file.txt"):
        (tmp_path / name).write_bytes(b"PK?")
    (tmp_path / "folder.onnx").mkdir()
    before = sorted(tmp_path.iterdir())
    given = [a.format(**files) for a in arguments]
    error = invoke(*given, code=1).stderr
    assert re.search(words, error) and error.count("\n") == 1, error
    assert sorted(tmp_path.iterdir()) == before, "nothing is left behind"


def test_options_that_two_result_files_do_not_take(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", dense=np.ones(3))
    pair = ("compare", tmp_path / "a.npz", tmp_path / "a.npz")
    for option, value in (
        ("--grid", "kitti"),
        ("--format", "kitti"),
        ("--precision", "fp32"),
        ("--threads", 1),
    ):
        assert f"{option} goes with one ONNX file" in invoke(*pair, option, value, code=2).output
    assert "compared with its model" in invoke("compare", "a.onnx", "b.onnx", code=2).output


def test_run_takes_an_array_of_an_npz_by_its_key(files: Files, tmp_path: Path) -> None:
    """As the error for an .npz of several arrays says."""
    both = tmp_path / "both.npz"
    np.savez(both, a=read_tensor(files["features"]), b=read_tensor(files["indices"]))
    error = invoke("run", files["int8"], "--features", both, "--indices", files["indices"], code=1).stderr
    assert f"name one of them as {both}:KEY" in error
    found = invoke_json("run", files["int8"], "--features", f"{both}:a", "--indices", f"{both}:b")
    assert found["voxels"] == len(read_tensor(files["indices"]))
