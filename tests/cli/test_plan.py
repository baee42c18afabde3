# SPDX-License-Identifier: Apache-2.0
"""`scn-fx plan`, and the commands that take a plan."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from scn_fx.cli.arrays import read_result
from tests.cli.conftest import MODEL, invoke, invoke_json
from tests.oracle.compare import assert_same_bits

Files = dict[str, Path]


@pytest.fixture(scope="module")
def plan(files: Files) -> Path:
    """Written where the command puts it by itself."""
    text = invoke("plan", files["int8"]).stdout
    made = files["int8"].with_suffix(".plan")
    assert text.startswith(f"saved {made} (") and "format 1, for cpu-" in text
    assert text.endswith(f"next: scn-fx run {made}\n")
    return made


def test_a_plan_says_what_it_was_made_from(files: Files, plan: Path, tmp_path: Path) -> None:
    facts = invoke_json("plan", files["int8"], "-o", tmp_path / "a.plan", "--precision", "fp32")
    assert facts["bytes"] == (tmp_path / "a.plan").stat().st_size and facts["precision"] == "fp32"
    digest = hashlib.sha256(files["int8"].read_bytes()).hexdigest()
    said = invoke_json("inspect", plan)
    assert facts["onnx_sha256"] == said["plan"]["onnx_sha256"] == digest
    onnx = invoke_json("inspect", files["int8"])
    assert said["nodes"] == onnx["nodes"] and onnx["plan"] is None
    assert digest in invoke("inspect", plan).stdout.replace("\n", "")


def test_it_runs_as_the_file_does(files: Files, plan: Path, tmp_path: Path) -> None:
    frame = ("--features", files["features"], "--indices", files["indices"])
    for number, file in enumerate((files["int8"], plan)):
        invoke("run", file, *frame, "-o", tmp_path / f"{number}.npz")
    one, other = (read_result(f"{tmp_path / str(number)}.npz") for number in (0, 1))
    assert_same_bits(other.values, one.values)


def test_it_is_compared_as_the_file_is(files: Files, plan: Path) -> None:
    options = ("--model", MODEL, "--cache", files["cache"], "--frames", files["frames"], "--identical")
    assert "every bit is the same" in invoke("compare", plan, *options).stdout


def test_what_needs_the_onnx_file_says_so(files: Files, plan: Path, tmp_path: Path) -> None:
    for arguments in (
        ("retrofit", plan, "--frames", files["frames"], "-o", tmp_path / "a.onnx"),
        ("report", plan, "--frames", files["frames"], "-o", tmp_path / "a.html"),
    ):
        assert "expected an ONNX file, got a plan" in invoke(*arguments, code=1).stderr
    assert "this is a plan already" in invoke("plan", plan, "-o", tmp_path / "a.plan", code=1).stderr
    assert "is the ONNX file itself" in invoke("plan", plan, code=1).stderr
    assert "asked for float32 throughout" in invoke("run", plan, "--precision", "fp32", code=1).stderr
    assert list(tmp_path.iterdir()) == []


def test_where_it_cannot_be_written_is_known_at_once(files: Files, tmp_path: Path) -> None:
    done = invoke("plan", files["int8"], "-o", tmp_path / "nowhere" / "a.plan", code=1)
    assert "--output" in done.stderr and "nowhere" in done.stderr
