# SPDX-License-Identifier: Apache-2.0
"""The demo with a narrow model: every stage, the files, the report, and its failure."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scn_fx.cli import demo, demo_job
from scn_fx.cli.demo_job import DemoReport, FrameResult
from scn_fx.files.onnx_models import read_model
from scn_fx.runtime import compare_arrays
from tests.cli.conftest import invoke, invoke_json


def test_the_small_demo_proves_its_result(tmp_path: Path) -> None:
    found = invoke_json("demo", "--small", "--output-dir", tmp_path / "out")
    assert found["ok"] and found["failures"] == []
    (result,) = found["results"]
    assert result["ok"] and result["compared"] == found["nodes"] + 1 == 40
    assert result["accuracy"]["cosine"] > 0.95 and not result["accuracy"]["identical"]
    stages = ["frames", "model", "capture", "calibrate", "export", "engine", "compare", "picture"]
    assert list(found["stages"]) == stages and found["seconds"] > sum(found["stages"].values()) * 0.99
    names = {Path(path).name: size for path, size in found["files"].items()}
    assert set(names) == {"scn.onnx", "scn.calibration.json", "bev.png"} and all(names.values())
    assert (tmp_path / "out" / "bev.png").read_bytes().startswith(b"\x89PNG")
    assert len(list((tmp_path / "out").iterdir())) == 3, "nothing is left over"
    metadata = read_model(tmp_path / "out" / "scn.onnx")["metadata"]
    assert metadata["scn_fx.model"] == "scn_fx.zoo:demo_model"


def report(**changes: Any) -> DemoReport:
    values = np.float32([1.0, 2.0])
    result = FrameResult("synthetic", 80_601, True, 40, compare_arrays(values, values + 0.1), 700.0, 1300.0)
    made = DemoReport((result,), (), {"frames": 1.0}, {"out/scn.onnx": 5_300_000}, 39, 21, 2, "avx2", 12.3)
    return replace(made, **changes)


def run_with(monkeypatch: pytest.MonkeyPatch, made: DemoReport, code: int = 0) -> str:
    def run_demo(settings: object, say: object) -> DemoReport:
        return made

    monkeypatch.setattr(demo_job, "run_demo", run_demo)
    return str(invoke("demo", code=code).output)


def test_the_last_lines_name_files_time_and_the_next_command(monkeypatch: pytest.MonkeyPatch) -> None:
    text = run_with(monkeypatch, report())
    saved = "saved out/scn.onnx (5.3 MB) (12.3 s)"
    assert text.rstrip().splitlines()[-2:] == [saved, "next: scn-fx inspect out/scn.onnx"]
    assert "yes, 40 of 40" in text and "80,601" in text and "FAILED" not in text


def test_a_failed_comparison_exits_with_1(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = replace(report().results[0], ok=False)
    text = run_with(monkeypatch, report(results=(failed,), failures=("conv1 differs",)), code=1)
    assert "FAILED: conv1 differs" in text and "NO" in text


def test_a_missing_package_is_told_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "find_spec", lambda name: None if name == "spconv" else object())
    assert "scn-fx[spconv-cpu]" in invoke("demo", code=1).stderr


def test_a_wrong_folder_of_frames_is_an_error(tmp_path: Path) -> None:
    error = invoke("demo", "--frames", tmp_path / "none", "--output-dir", tmp_path / "out", code=1).stderr
    assert "none" in error and error.count("Error: ") == 1
