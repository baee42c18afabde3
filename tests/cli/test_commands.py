# SPDX-License-Identifier: Apache-2.0
"""calibrate, export, inspect, run, compare and env on a small network."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from scn_fx import Engine
from scn_fx.lidar import read_tensor, write_tensor
from tests.cli.conftest import MODEL, invoke, invoke_json

Files = dict[str, Path]


def test_calibrate_writes_a_cache_with_the_graphs_layers(files: Files) -> None:
    cache = json.loads(files["cache"].read_text())
    assert cache["frames"] == 2 and "extra_conv.0" in cache["layers"]


def test_calibrate_as_json(files: Files, tmp_path: Path) -> None:
    outcome = invoke_json(
        "calibrate",
        "--model",
        MODEL,
        "--frames",
        files["features"],
        "-o",
        tmp_path / "c.json",
        "--method",
        "max",
    )
    assert outcome["frames"] == 1 and Path(outcome["cache"]).exists()


def test_export_says_what_it_wrote(files: Files, tmp_path: Path) -> None:
    arguments = ("export", "--model", MODEL, "--cache", files["cache"], "--exporter", "torchscript")
    text = invoke(*arguments, "-o", tmp_path / "a.onnx").output
    assert "a.onnx" in text and "7 nodes" in text and "torchscript" in text
    facts = invoke_json(*arguments, "-o", tmp_path / "b.onnx", "--precision", "extra_conv.*=fp16")
    assert facts["nodes"] == 7 and facts["graph"] == "calibrated"
    assert (
        invoke_json("inspect", tmp_path / "a.onnx")["nodes"] == invoke_json("inspect", files["int8"])["nodes"]
    )
    rows = {row["name"]: row for row in invoke_json("inspect", tmp_path / "b.onnx")["nodes"]}
    assert rows["extra_conv.0"]["precision"] == "fp16"


def test_export_needs_a_cache_or_float_and_the_right_cache(files: Files, tmp_path: Path) -> None:
    target = tmp_path / "x.onnx"
    assert "--cache" in invoke("export", "--model", MODEL, "-o", target, code=2).output
    both = ("--float", "--cache", files["cache"])
    assert "--float" in invoke("export", "--model", MODEL, *both, "-o", target, code=2).output
    wrong = invoke("export", "--model", "nonsense", "--float", "-o", target, code=1)
    assert "nonsense" in wrong.stderr
    foreign = tmp_path / "foreign.json"
    cache = json.loads(files["cache"].read_text())
    foreign.write_text(json.dumps({**cache, "fingerprint": "0" * 64}))
    assert (
        "another graph" in invoke("export", "--model", MODEL, "--cache", foreign, "-o", target, code=1).stderr
    )
    assert not list(tmp_path.glob("x.onnx*"))


def test_a_failing_export_leaves_the_old_file_alone(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    def fail(view: object, args: object, path: str, **options: object) -> None:
        Path(path).write_bytes(b"half of a file")
        raise OSError(28, "No space left on device", path)

    monkeypatch.setattr(torch.onnx, "export", fail)
    target = tmp_path / "scn.onnx"
    target.write_bytes(b"the file of before")
    error = invoke("export", "--model", MODEL, "--float", "-o", target, code=1).stderr
    assert "No space left" in error and error.count("\n") == 1
    assert target.read_bytes() == b"the file of before" and list(tmp_path.iterdir()) == [target]


def test_inspect_shows_ranges_and_precisions(files: Files) -> None:
    text = invoke("inspect", files["int8"]).output
    for word in ("conv1.0.conv2", "subm conv + ReLU", "fp16 → int8", "int8 → fp16", "subm333", "opset", "kB"):
        assert word in text, word
    assert "scn_fx.calibration.frames = 2" in text
    found = invoke_json("inspect", files["int8"])
    assert [row["op_type"] for row in found["nodes"]].count("SparseConvolution") == 4
    rows = {row["name"]: row for row in found["nodes"]}
    assert len(rows["conv1.0.add"]["input_ranges"]) == 2
    conv = rows["extra_conv.0"]
    assert (conv["in_channels"], conv["out_channels"]) == (4, 8)
    assert 0 < conv["weight_range_min"] <= conv["weight_range_max"]
    cache = json.loads(files["cache"].read_text())["layers"]["extra_conv.0"]
    assert conv["input_ranges"] == pytest.approx([cache["input_dynamic_range"]])


def test_inspect_a_float_file(files: Files) -> None:
    rows = invoke_json("inspect", files["float"])["nodes"]
    assert all(row["precision"] is None and row["input_ranges"] == [] for row in rows)
    assert "int8" not in invoke("inspect", files["float"]).output.replace(str(files["float"]), "")


def test_run_prints_shape_and_time_and_writes_the_result(files: Files, tmp_path: Path) -> None:
    frame = ("--features", files["features"], "--indices", files["indices"])
    text = invoke(
        "run", files["int8"], *frame, "--threads", 1, "--repeat", 2, "-o", tmp_path / "out.npz"
    ).output
    for word in ("float16 [1, 8, 6, 12, 12]", "ms best", "1 threads", "120 voxels", "out.npz"):
        assert word in text, word
    facts = invoke_json("run", files["int8"], *frame, "-o", tmp_path / "out.tensor")
    assert facts["outputs"][0]["shape"] == [1, 8, 6, 12, 12] and facts["milliseconds"] > 0
    expected = Engine(files["int8"])(read_tensor(files["features"]), read_tensor(files["indices"]))
    assert np.array_equal(np.load(tmp_path / "out.npz")["dense"], expected)
    assert np.array_equal(read_tensor(tmp_path / "out.tensor"), expected)
    single = invoke_json("run", files["int8"], *frame, "--precision", "fp32")
    assert single["outputs"][0]["dtype"] == "float32"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--features", "{features}"], "belong together"),
        (["--features", "{features}", "--indices", "{indices}", "--points", "{cache}"], "not both"),
        (["--features", "{features}", "--indices", "{features}"], "indices"),
        (["--features", "{cache}", "--indices", "{indices}"], "expected a .tensor, .npy or .npz"),
        (["--features", "none.npz", "--indices", "{indices}"], "an .npz file, but there is none"),
        (["-o", "out.png"], "must end in .npz or .tensor"),
        (["--points", "{cache}", "--format", "nuscenes"], "cache.json"),
    ],
)
def test_run_refuses_frames_that_are_none(files: Files, arguments: list[str], words: str) -> None:
    given = [a.format(**files) for a in arguments]
    error = invoke("run", files["int8"], *given, code=1).stderr
    assert words in error and error.count("\n") == 1


def test_compare_a_model_with_its_file(files: Files) -> None:
    model = ("--model", MODEL, "--frames", files["frames"], "--limit", 2)
    text = invoke("compare", files["int8"], *model, "--cache", files["cache"]).output
    assert "same bits" in text and "2 frame(s)" in text and "every bit is the same" in text
    found = invoke_json("compare", files["int8"], *model, "--cache", files["cache"], "--threads", 1)
    assert found["ok"] and found["identical"] and len(found["nodes"]) == 7
    float_graph = invoke_json("compare", files["int8"], *model)
    assert float_graph["ok"] and not float_graph["identical"], "without the cache the graph is float"
    single = invoke_json("compare", files["float"], *model, "--precision", "fp32")
    assert single["ok"]


def test_compare_fails_beyond_limits(files: Files) -> None:
    model = ("--model", MODEL, "--frames", files["features"])
    text = invoke("compare", files["int8"], *model, "--identical", code=1).output
    assert "FAILED at conv_input.0" in text and "expected the same bits" in text
    found = invoke_json("compare", files["int8"], *model, "--sqnr", 200, code=1)
    assert not found["ok"] and found["nodes"][0]["failures"]
    wrong = invoke("compare", files["int8"], "--model", "tests.cli.test_commands:other", code=1)
    assert "not an export of this graph" in wrong.stderr


def other() -> object:
    """Another captured graph."""
    from tests.quant.graphs import GraphBuilder

    build = GraphBuilder()
    return build.finish(build.dense(build.conv(build.features, "other.0", (3, 4))))


def test_compare_two_files(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    a = rng.standard_normal((1, 2, 5, 5)).astype(np.float32)
    b = a + np.float32(0.001)
    write_tensor(tmp_path / "a.tensor", a)
    np.savez(tmp_path / "b.npz", dense=b, other=a)
    np.save(tmp_path / "c.npy", np.zeros_like(a))
    first, second = str(tmp_path / "a.tensor"), str(tmp_path / "b.npz")
    text = invoke("compare", first, second, "--cosine", 0.999).output
    assert "cosine" in text and "> 75% of max" in text and text.endswith("ok\n")
    found = invoke_json("compare", first, second)
    assert found["ok"] and found["difference"]["max_abs"] == pytest.approx(0.001, rel=1e-3)
    assert invoke_json("compare", first, f"{second}:other", "--identical")["difference"]["identical"]
    assert "FAILED" in invoke("compare", first, second, "--max-abs", 1e-6, code=1).output
    assert "all zero" in invoke("compare", first, tmp_path / "c.npy", code=1).output
    invoke("compare", first, tmp_path / "c.npy", "--allow-zero", "--cosine", 0)


def test_compare_sparse_files_by_site(tmp_path: Path) -> None:
    sites = np.int32([[0, 0, 0, 1], [0, 2, 3, 4], [0, 1, 1, 1]])
    values = np.arange(6, dtype=np.float32).reshape(3, 2)
    np.savez(tmp_path / "a.npz", features=values, indices=sites)
    write_tensor(tmp_path / "b.features.tensor", values[::-1].copy())
    write_tensor(tmp_path / "b.indices.tensor", sites[::-1].copy())
    pair = f"{tmp_path}/b.features.tensor:b.indices.tensor"
    assert invoke_json("compare", tmp_path / "a.npz", pair, "--identical")["ok"]
    np.save(tmp_path / "dense.npy", values)
    assert "sparse" in invoke("compare", tmp_path / "a.npz", tmp_path / "dense.npy", code=1).stderr


def test_compare_needs_two_files_or_a_model(files: Files, tmp_path: Path) -> None:
    assert "--model" in invoke("compare", files["int8"], code=2).output
    assert "Expected one ONNX file" in invoke("compare", "a", "b", "c", code=2).output
    assert "--model goes with" in invoke("compare", "a", "b", "--model", MODEL, code=2).output
    assert "there is none" in invoke("compare", tmp_path / "a.npz", tmp_path / "b.npz", code=1).stderr
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 nothing")
    assert "no complete zip archive" in invoke("compare", tmp_path / "broken.npz", "x.npy", code=1).stderr
    np.savez(tmp_path / "two.npz", a=np.ones(2), b=np.ones(2))
    assert "holds a, b" in invoke("compare", tmp_path / "two.npz", tmp_path / "two.npz:a", code=1).stderr


def test_env(monkeypatch: pytest.MonkeyPatch) -> None:
    found = invoke_json("env")
    assert found["processors"] >= 1 and found["cuda"]["built"] in (True, False)
    assert {entry["package"] for entry in found["packages"]} >= {"torch", "spconv", "onnx", "nvidia-modelopt"}
    from scn_fx.cli import env

    monkeypatch.setattr(env, "_version", lambda names: None)
    assert "scn-fx[spconv-cpu]" in invoke("env").output


def test_env_shows_cuda_in_build_driver_and_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    from scn_fx import _core

    card = {"name": "H100", "architecture": 90, "memory": 80 << 30, "multiprocessors": 132, "fits": True}
    info = {
        "built": True,
        "compiler": 13000,
        "architectures": ["80", "90a"],
        "ptx": 120,
        "driver": 12090,
        "devices": [card, {**card, "name": "V100", "architecture": 70, "fits": False}],
        "problem": "",
    }
    monkeypatch.setattr(_core, "cuda_info", lambda: info)
    text = " ".join(invoke("env").output.split())
    for words in (
        "CUDA 13.0, code for 80, 90a, PTX for 120 and newer",
        "for CUDA 12.9",
        "cuda:0 H100, architecture 90, 80 GiB, 132 multiprocessors: usable",
        "cuda:1 V100, architecture 70, 80 GiB, 132 multiprocessors: no code for it in this build",
    ):
        assert words in text, words
    assert invoke_json("env")["cuda"] == info
    nothing = {**info, "driver": 0, "devices": [], "problem": "There is no NVIDIA driver on this machine."}
    monkeypatch.setattr(_core, "cuda_info", lambda: nothing)
    text = " ".join(invoke("env").output.split())
    assert "cuda driver none" in text and "no cuda There is no NVIDIA driver on this machine." in text
    monkeypatch.setattr(_core, "cuda_info", lambda: {**nothing, "built": False, "problem": "Not built."})
    text = " ".join(invoke("env").output.split())
    assert "cuda Not built." in text and "cuda driver" not in text


def test_run_on_a_device_that_is_not_there(files: Files) -> None:
    error = invoke("run", files["int8"], "--device", "cuda:99", code=1).stderr
    assert "cuda:99" in error and "scn-fx env" in error
    error = invoke("compare", files["int8"], "--model", MODEL, "--device", "tpu", code=1).stderr
    assert "device must be 'cpu', 'cuda' or 'cuda:N', got 'tpu'" in error
