# SPDX-License-Identifier: Apache-2.0
"""`scn-fx sensitivity`, `scn-fx retrofit` and `--precision auto`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import MODEL, invoke, invoke_json

LAYERS = {"conv_input.0", "conv1.0.conv1", "conv1.0.conv2", "conv1.0.add", "extra_conv.0"}


def test_sensitivity_of_a_model_and_of_its_file(files: dict[str, Path], tmp_path: Path) -> None:
    frames = ("--frames", files["frames"], "--quiet")
    plot = tmp_path / "layers.png"
    found = invoke_json("sensitivity", MODEL, "--cache", files["cache"], *frames, "--plot", plot)
    assert {row["name"] for row in found["layers"]} == LAYERS and found["frames"] == 2
    dbs = [row["sqnr_db"] for row in found["layers"]]
    assert dbs == sorted(dbs) and found["together"]["sqnr_db"] < dbs[0]
    assert plot.read_bytes().startswith(b"\x89PNG") and found["plot"] == str(plot)
    # The file's weights are float16, so that its float reference is a little different.
    of_file = invoke_json("sensitivity", files["int8"], *frames)
    assert {row["name"]: row["sqnr_db"] for row in of_file["layers"]} == pytest.approx(
        {row["name"]: row["sqnr_db"] for row in found["layers"]}, abs=1.0
    )
    table = invoke("sensitivity", files["int8"], *frames, "--layer", "conv1.*").stdout
    assert "conv1.0.add" in table and "extra_conv" not in table and "all together" in table


def test_sensitivity_without_ranges_calibrates_first(files: dict[str, Path]) -> None:
    result = invoke("sensitivity", "--model", MODEL, "--frames", files["frames"], "--quiet")
    assert "calibrating on the same frames first" in result.stderr and "extra_conv.0" in result.stdout


def test_sensitivity_usage(files: dict[str, Path], tmp_path: Path) -> None:
    frames = ("--frames", files["frames"])
    assert "Name one network" in invoke("sensitivity", *frames, code=2).stderr
    assert "Name one network" in invoke("sensitivity", MODEL, "--model", MODEL, *frames, code=2).stderr
    refused = invoke("sensitivity", files["int8"], "--cache", files["cache"], *frames, code=1)
    assert "--cache goes with a model" in refused.stderr
    refused = invoke("sensitivity", files["int8"], *frames, "--plot", tmp_path / "no" / "x.png", code=1)
    assert "--plot" in refused.stderr


def test_a_chart_needs_matplotlib_before_anything_is_measured(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    refused = invoke("sensitivity", "no such model", "--frames", "none", "--plot", tmp_path / "x.png", code=1)
    assert "pip install 'scn-fx[plot]'" in refused.stderr


def test_retrofit(files: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "retrofitted.onnx"
    options = ("--frames", files["frames"], "-o", out, "--quiet")
    found = invoke_json("retrofit", files["float"], *options, "--method", "max")
    assert found["nodes"] == 5 and found["replaced"] == 0 and found["frames"] == 2
    rows = {row["name"]: row for row in invoke_json("inspect", out)["nodes"]}
    for row in found["layers"]:
        assert rows[row["name"]]["precision"] == row["precision"]
        assert rows[row["name"]]["input_ranges"] == row["ranges"]
    refused = invoke("retrofit", out, *options, code=1)
    assert "has ranges already" in refused.stderr and "--force" in refused.stderr
    text = invoke("retrofit", out, *options, "--force", "--precision", "extra*=fp16").stdout
    assert "5 nodes with ranges (5 replaced)" in text
    assert {r["name"]: r for r in invoke_json("inspect", out)["nodes"]}["extra_conv.0"]["precision"] == "fp16"
    assert "needs --budget" in invoke("retrofit", out, *options, "--precision", "auto", code=1).stderr


def test_export_chooses_precisions_for_a_budget(files: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "chosen.onnx"
    common = ("export", "--model", MODEL, "--cache", files["cache"], "-o", out, "--exporter", "torchscript")
    auto = ("--precision", "auto", "--budget", "sqnr>=60", "--frames", files["frames"])
    found = invoke_json(*common, *auto)["choice"]
    assert found["sqnr_db"] >= 60 and found["fp16"]
    rows = {row["name"]: row["precision"] for row in invoke_json("inspect", out)["nodes"]}
    assert all(rows[row["name"]] == row["precision"] for row in found["layers"])
    assert "cannot be met" in invoke(*common, *auto, "--budget", "sqnr>=300", code=1).stderr
    assert "belong together" in invoke(*common, "--frames", files["frames"], code=2).stderr
    assert "layers in float16" in invoke(*common, *auto, "--precision", "extra*=fp16").stdout


def test_calibrate_chooses_precisions_for_a_budget(files: dict[str, Path], tmp_path: Path) -> None:
    cache = tmp_path / "cache.json"
    common = ("calibrate", "--model", MODEL, "--frames", files["frames"], "-o", cache, "--quiet")
    found = invoke_json(*common, "--precision", "auto", "--budget", "sqnr>=60")
    assert found["choice"]["sqnr_db"] >= 60
    chosen = {row["name"]: row["precision"] for row in found["layers"]}
    stored = json.loads(cache.read_text())["layers"]
    assert {name: layer["precision"] for name, layer in stored.items()} == chosen
    assert {name for name, precision in chosen.items() if precision == "fp16"} > set(found["choice"]["fp16"])
    text = invoke(*common, "--precision", "auto", "--budget", "sqnr>=0", "--precision", "extra*=fp16").stdout
    assert "sqnr>=0: 0 of 3 layers in float16" in text
    refused = invoke(*common, "--precision", "auto", "--budget", "sqnr>=300", code=1)
    assert "cannot be met" in refused.stderr and cache.exists()
