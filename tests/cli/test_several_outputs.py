# SPDX-License-Identifier: Apache-2.0
"""Commands on networks with several outputs, chosen with --model-output or by the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scn_fx.cli.arrays import read_result
from scn_fx.files.onnx_models import read_model
from scn_fx.runtime import Engine
from tests.capture.frames import frame
from tests.cli.conftest import invoke, invoke_json
from tests.quant.graphs import frame as graph_frame

GRAPH = "tests.quant.graphs:two_outputs"
ENCODER = "tests.cli.test_several_outputs:encoder"
CHOICE = ("--model-output", "spatial_features", "--model-output", "multi_scale_3d_features, x_conv1")


def encoder() -> Any:
    """(module, args) of a small encoder with levels."""
    from tests.capture.test_several_outputs import args, model

    return model(), args(*frame()), "spatial_features"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("several")
    features, indices = (tensor.numpy() for tensor in frame())
    np.save(folder / "features.npy", features)
    np.save(folder / "indices.npy", indices)
    from scn_fx.lidar import write_tensor

    write_tensor(folder / "0.features.tensor", features)
    write_tensor(folder / "0.indices.tensor", indices)
    return {"folder": folder, "features": folder / "features.npy", "indices": folder / "indices.npy"}


def test_calibrate_export_inspect_run_and_compare_with_chosen_outputs(saved: dict[str, Path]) -> None:
    folder = saved["folder"]
    frames, cache, file = folder, folder / "cache.json", folder / "scn.onnx"
    named = ("--model", ENCODER, *CHOICE)
    invoke("calibrate", *named, "--frames", frames, "-o", cache, "--method", "max")
    invoke("export", *named, "--cache", cache, "-o", file)
    assert list(read_model(file)["outputs"]) == ["output0", "output1"]
    shown = invoke("inspect", file).output
    assert "output output0 (dense.reshape), output1 (conv1.relu)" in shown
    frame_files = ("--features", saved["features"], "--indices", saved["indices"])
    facts = invoke_json("run", file, *frame_files, "-o", folder / "out.npz")
    assert [entry["name"] for entry in facts["outputs"]] == ["output0", "output1"]
    assert facts["outputs"][0]["shape"] == [1, 48, 3, 4]
    assert facts["outputs"][1]["sites"] == len(np.load(saved["indices"]))
    dense, (values, sites) = Engine(file)(np.load(saved["features"]), np.load(saved["indices"]))
    assert np.array_equal(read_result(f"{folder / 'out.npz'}:output0").values, dense)
    level = read_result(f"{folder / 'out.npz'}:output1")
    assert level.indices is not None
    assert np.array_equal(level.values, values) and np.array_equal(level.indices, sites)
    found = invoke_json("compare", file, *named, "--cache", cache, "--frames", frames)
    assert found["ok"] and [entry["name"] for entry in found["outputs"]] == ["output0", "output1"]
    rows = invoke_json("sensitivity", *named, "--cache", cache, "--frames", frames)
    assert len(rows["layers"]) == 10


def test_a_cache_of_other_outputs_is_refused(saved: dict[str, Path], tmp_path: Path) -> None:
    cache = tmp_path / "cache.json"
    invoke("calibrate", "--model", ENCODER, "--frames", saved["folder"], "-o", cache, "--method", "max")
    result = invoke(
        "export", "--model", ENCODER, *CHOICE, "--cache", cache, "-o", tmp_path / "a.onnx", code=1
    )
    assert "Error: " in result.output


def test_results_of_several_outputs_as_tensor_files(tmp_path: Path) -> None:
    features, indices = (tensor.numpy() for tensor in graph_frame(0))
    np.save(tmp_path / "f.npy", features)
    np.save(tmp_path / "i.npy", indices)
    file = tmp_path / "scn.onnx"
    invoke("export", "--model", GRAPH, "--float", "-o", file)
    frame_files = ("--features", tmp_path / "f.npy", "--indices", tmp_path / "i.npy")
    invoke("run", file, *frame_files, "-o", tmp_path / "out.tensor")
    names = sorted(path.name for path in tmp_path.glob("out.*"))
    assert names == ["out.output0.features.tensor", "out.output0.indices.tensor", "out.output1.tensor"]
    pair = f"{tmp_path / names[0]}:{tmp_path / names[1]}"
    result = invoke("compare", pair, pair)
    assert "ok" in result.output


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("export", "--model", GRAPH, "--float", "--model-output", "0"), 1, "outputs are chosen"),
        (("export", "--model", ENCODER, "--float", "--model-output", "a,,b"), 1, "Expected an output"),
        (("export", "--model", ENCODER, "--float", "--model-output", "none"), 1, "no output='none'"),
        (("compare", "a.npz", "b.npz", "--model-output", "0"), 2, "--model-output goes with one ONNX"),
        (("sensitivity", "a.onnx", "--frames", "x", "--model-output", "0"), 1, "goes with a model"),
    ],
)
def test_wrong_uses_say_what_to_do(
    arguments: tuple[str, ...], code: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert words in invoke(*arguments, code=code).output
