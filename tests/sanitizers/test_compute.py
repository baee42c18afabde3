# SPDX-License-Identifier: Apache-2.0
"""What `make compute-sanitizer` runs, and what it says where it cannot. Needs neither the tool nor a GPU."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from scn_fx import _core
from tests.cpp_programs import ROOT
from tests.sanitizers import compute


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program of that name that notes its arguments, and exits with what the file of its tool says."""
    path = tmp_path / "bin" / "compute-sanitizer"
    path.parent.mkdir()
    path.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\nexit $(cat {tmp_path}/$2 2>/dev/null || echo 0)\n'
    )
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{path.parent}:/usr/bin:/bin")
    return path


def _with_gpu(monkeypatch: pytest.MonkeyPatch, problem: str = "") -> None:
    monkeypatch.setattr(_core, "cuda_info", lambda: {"problem": problem})


def test_each_tool_runs_the_chosen_tests(
    tool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _with_gpu(monkeypatch)
    assert compute.run([]) == 0
    calls = (tmp_path / "calls").read_text().splitlines()
    assert [call.split()[1] for call in calls] == ["memcheck", "racecheck"]
    for call in calls:
        assert "--error-exitcode 86" in call and f"{sys.executable} -m pytest -m gpu" in call
        assert all(test in call for test in compute.TESTS)
    assert capsys.readouterr().out.endswith("memcheck, racecheck: nothing found\n")
    assert compute.run(["tests/gpu", "-k", "maps"]) == 0
    assert (tmp_path / "calls").read_text().splitlines()[-1].endswith("no:cacheprovider tests/gpu -k maps")


@pytest.mark.parametrize(("code", "text"), [("86", "racecheck: it found something"), ("1", "exit code 1")])
def test_findings_and_failures_are_said(
    code: str,
    text: str,
    tool: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _with_gpu(monkeypatch)
    (tmp_path / "racecheck").write_text(code)
    assert compute.run([]) == 1
    out = capsys.readouterr().out
    assert text in out and "memcheck:" not in out


def test_what_is_missing_is_said(tool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _with_gpu(monkeypatch, "There is no driver.")
    with pytest.raises(SystemExit, match=r"need a GPU that this build can use. There is no driver."):
        compute.run([])
    assert not (tmp_path / "calls").exists()
    monkeypatch.setattr(compute.shutil, "which", lambda *_, **__: None)
    with pytest.raises(SystemExit, match="CUDA toolkit: install"):
        compute.run([])


def test_the_tool_is_found_in_cuda_home(tool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("CUDA_HOME", str(tool.parents[1]))
    assert compute.find_tool() == str(tool)


def test_the_chosen_tests_exist() -> None:
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", "gpu", "-p", "no:cacheprovider"]
    done = subprocess.run([*command, *compute.TESTS], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
