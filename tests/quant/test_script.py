# SPDX-License-Identifier: Apache-2.0
"""The calibration script: files in, cache out; models by name and import path; errors people will make."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

import quant
from scn_fx.errors import CalibrationError, CaptureWarning, LidarError, ScnError
from scn_fx.lidar import write_tensor
from scn_fx.quant.__main__ import main
from scn_fx.quant.console import tidy_warnings
from scn_fx.quant.frame_files import FrameFiles
from scn_fx.quant.models import load_graph, load_weights
from scn_fx.quant.script import parse_precision
from tests.quant.graphs import frame, residual

SMALL = "tests.quant.test_script:small"
GRAPH = "tests.quant.test_script:captured"
OTHER = "tests.quant.test_script:other_weights"


def captured() -> torch.fx.GraphModule:
    """What users' callables may return: a captured graph."""
    return residual()


def small() -> Any:
    """Or a module with `arguments`: a zoo encoder with narrow layers."""
    from scn_fx.zoo import CenterPointEncoder

    torch.manual_seed(3)
    return CenterPointEncoder(5, (4, 8, 8, 8), grid=(1440, 1440, 40))


def other_weights() -> Any:
    """The same module before its checkpoint is loaded."""
    model = small()
    torch.nn.init.constant_(next(model.parameters()), 0.5)
    return model


def with_args() -> Any:
    """Or (module, args, output)."""
    model = small()
    features, indices = torch.zeros(4, 5), torch.arange(16, dtype=torch.int32).reshape(4, 4)
    indices[:, 0] = 0
    return model, model.arguments(features, indices), 0


def nothing() -> int:
    return 3


NOT_CALLABLE = 3


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two voxelised frames that fit `residual()`."""
    for number in range(2):
        features, indices = frame(number)
        write_tensor(tmp_path / f"{number}.features.tensor", features.half().numpy())
        write_tensor(tmp_path / f"{number}.indices_zyx.tensor", indices.numpy())
    return tmp_path


def sweep(path: Path, seed: int = 0, columns: int = 5) -> Path:
    """A nuScenes point file: float32 x 5, x, y, z in metres, intensity, ring."""
    rng = np.random.default_rng(seed)
    points = rng.uniform((-50, -50, -4, 0, 0), (50, 50, 2, 255, 31), (3000, 5)).astype("<f4")
    points[:, 4] = np.floor(points[:, 4])
    points[:, :columns].tofile(path)
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


def test_frames_to_cache(folder: Path) -> None:
    cache = folder / "out.json"
    done = run("--model", GRAPH, "--frames", folder, "--method", "max", "-o", cache)
    assert done.exit_code == 0, done.output
    assert "conv1.0.add" in done.stdout and "2 frames, method max: saved as" in done.stdout
    graph, expected = residual(), residual()
    quant.load_cache(graph, cache)
    quant.calibrate(expected, [frame(0), frame(1)], method="max")
    assert [n.kwargs for n in graph.graph.nodes] == [n.kwargs for n in expected.graph.nodes]


def test_json_and_precision_options(folder: Path) -> None:
    options = ("--precision", "conv1.*=fp16", "--precision", "conv1.0.add=int8", "--limit", 1, "--json")
    done = run("--model", GRAPH, "--frames", folder, "-o", folder / "out.json", *options)
    assert done.exit_code == 0, done.output
    outcome = json.loads(done.stdout)
    assert (outcome["frames"], outcome["method"]) == (1, "mse")
    found = {layer["name"]: layer["precision"] for layer in outcome["layers"]}
    assert found == {
        "conv_input.0": "fp16", "conv1.0.conv1": "fp16", "conv1.0.conv2": "fp16", "conv1.0.add": "int8",
        "extra_conv.0": "int8",
    }  # fmt: skip
    assert all(len(layer["ranges"]) == len(layer["largest"]) for layer in outcome["layers"])


def test_raw_sweeps_and_a_module_with_a_checkpoint(tmp_path: Path) -> None:
    sweep(tmp_path / "a.bin")
    model = small()
    state = {f"backbone.{k}": v for k, v in model.state_dict().items()} | {"head.weight": torch.zeros(3)}
    torch.save({"state_dict": state, "epoch": 2}, tmp_path / "scn.pth")
    cache = tmp_path / "out.json"
    options = ("--checkpoint", tmp_path / "scn.pth", "--frames", tmp_path / "a.bin", "-o", cache)
    done = run("--model", SMALL, *options, "--grid", "bevfusion")
    assert done.exit_code == 0, done.output
    model.eval()
    with_capture = load_graph(SMALL, checkpoint=tmp_path / "scn.pth")
    assert quant.load_cache(with_capture, cache)["frames"] == 1
    features, _ = next(iter(FrameFiles.find(tmp_path / "a.bin", grid="centerpoint")))
    assert (features[:, 4] == 0).all()  # a ring is no time lag


def test_a_tuple_and_a_zoo_model_are_captured() -> None:
    assert load_graph("tests.quant.test_script:with_args").meta["scn_fx"]["axes"] == "zyx"
    first = load_graph("second", grid="kitti")
    torch.manual_seed(99)  # weights must not depend on it
    again = load_graph("second", grid="kitti")
    from scn_fx.graph import fingerprint, layers

    assert fingerprint(first) == fingerprint(again)
    assert layers(first)[0].weight.shape[-1] == 4


@pytest.mark.parametrize(
    ("model", "match"),
    [
        ("resnet", "Unknown model 'resnet'; expected one of centerpoint, second, second-res"),
        ("tests.nowhere:model", "cannot be imported: No module named 'tests.nowhere'"),
        ("tests.quant.test_script:gone", "cannot be imported: .* has no attribute 'gone'"),
        ("tests.quant.test_script:NOT_CALLABLE", "must be callable"),
        ("tests.quant.test_script:nothing", "must return an nn.Module, .* got int"),
    ],
)
def test_models_that_cannot_be_loaded(model: str, match: str) -> None:
    with pytest.raises(CalibrationError, match=match):
        load_graph(model)


def test_checkpoints_that_do_not_fit(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    path = tmp_path / "c.pth"

    def fails(content: Any, match: str) -> None:
        torch.save(content, path)
        with pytest.raises(CalibrationError, match=match):
            load_weights(module, path)

    fails({"0.weight": torch.zeros(2, 3)}, "lacks 5 of 6 weights of Sequential: 0.bias, 1.weight")
    fails([1, 2], "holds no state dict, but a list")
    fails(
        dict(module.state_dict(), **{"0.weight": torch.zeros(3, 2)}),
        r"0.weight must be \[2, 3\], got \[3, 2\]",
    )
    path.write_bytes(b"no checkpoint")
    with pytest.raises(CalibrationError, match="cannot be read as weights"):
        load_weights(module, path)
    with pytest.raises(CalibrationError, match="expected a checkpoint, but there is none"):
        load_weights(module, tmp_path / "gone.pth")
    with pytest.raises(CalibrationError, match="weights are final"):
        load_graph(GRAPH, checkpoint=path)


def test_frame_files_are_found_paired_and_thinned(folder: Path) -> None:
    for number in range(2, 12):
        sweep(folder / f"{number:02}.bin", number)
    (folder / "notes.txt").write_text("not a frame")
    frames = FrameFiles.find(folder)
    assert len(frames) == 12
    assert sorted(len(files) for files in frames.files) == [1] * 10 + [2] * 2
    few = FrameFiles.find(folder, limit=3)
    assert [files[0].name for files in few.files] == [
        frames.files[0][0].name, frames.files[6][0].name, frames.files[11][0].name,
    ]  # fmt: skip
    assert len(FrameFiles.find(folder, limit=99)) == 12
    features, indices = next(iter(FrameFiles.find(folder / "0.features.tensor")))
    assert np.array_equal(indices, frame(0)[1].numpy()) and features.dtype == np.float16


def test_folders_without_usable_frames(folder: Path, tmp_path: Path) -> None:
    (folder / "1.indices_zyx.tensor").unlink()
    for path, options, match in (
        (folder, {}, r"1.features.tensor: expected one file 1.indices\*.tensor beside it, found none"),
        (tmp_path / "gone", {}, "there is nothing"),
        (folder, {"grid": "mars"}, "Expected a grid as a preset .centerpoint, kitti.*got 'mars'"),
        (folder, {"limit": 0}, "must be at least 1"),
    ):
        with pytest.raises(LidarError, match=match):
            FrameFiles.find(path, **options)  # type: ignore[arg-type]
    (tmp_path / "empty").mkdir()
    with pytest.raises(LidarError, match="found none"):
        FrameFiles.find(tmp_path / "empty")


def test_precision_texts() -> None:
    assert parse_precision([]) is None
    assert parse_precision(["fp16"]) == "fp16"
    assert list(parse_precision(["a=int8", "b=fp16", "a=fp16"]).items()) == [("b", "fp16"), ("a", "fp16")]
    for texts in (["=fp16"], ["a="], ["a=fp16", "int8"]):
        with pytest.raises(CalibrationError, match="Expected PATTERN=PRECISION"):
            parse_precision(texts)


def test_errors_end_with_a_message_and_status_1(folder: Path) -> None:
    done = run("--model", GRAPH, "--frames", folder / "gone", "-o", folder / "out.json")
    assert done.exit_code == 1
    assert "Error:" in done.stderr and "there is nothing" in done.stderr and "Traceback" not in done.output
    done = run("--model", GRAPH, "--frames", folder, "-o", folder / "no" / "out.json")
    assert done.exit_code == 1 and "does not exist. Make it" in done.stderr
    assert run("--model", GRAPH, "--frames", folder, "--method", "minmax").exit_code == 2
    assert issubclass(LidarError, ScnError)


def test_help_is_quick_and_complete() -> None:
    code = (
        "import sys; sys.argv = ['quant', '--help']\n"
        "import runpy, atexit; atexit.register(lambda: print({'torch', 'modelopt'} & set(sys.modules)))\n"
        "runpy.run_module('quant', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for option in ("--model", "--frames", "--checkpoint", "--grid", "--method", "--precision", "--json"):
        assert option in done.stdout
    assert done.stdout.strip().endswith("set()")


def test_warnings_are_one_tidy_line_each_on_standard_error(folder: Path) -> None:
    features, indices = frame(7)
    features[3, 1] = 5e4
    write_tensor(folder / "2.features.tensor", features.numpy())
    write_tensor(folder / "2.indices.tensor", indices.numpy())
    command = ["-m", "quant", "--model", GRAPH, "--frames", folder, "-o", folder / "out.json"]
    command += ["--json", "--quiet"]
    for words in (command, ["-m", "scn_fx.cli", "calibrate", *command[2:]]):
        done = subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        (line,) = done.stderr.splitlines()
        assert line.startswith("Warning: Frame 2, column 1 of features") and "left out" in line
        outcome = json.loads(done.stdout)
        assert [f"Warning: {text}" for text in outcome["warnings"]] == [line] and outcome["frames"] == 3


def test_a_forgotten_checkpoint_is_named_at_the_cache(tmp_path: Path) -> None:
    model = small()
    torch.save({"a": model.state_dict(), "b": small().state_dict()}, tmp_path / "scn.pth")
    sweep(tmp_path / "a.bin")
    options = ("--model", SMALL, "--grid", "centerpoint", "--frames", tmp_path / "a.bin")
    options += ("-o", tmp_path / "out.json")
    done = run(*options, "--checkpoint", tmp_path / "scn.pth")
    assert done.exit_code == 1 and "'a.', 'b.'" in done.stderr and "--checkpoint-prefix" in done.stderr
    done = run(
        *options, "--checkpoint", tmp_path / "scn.pth", "--checkpoint-prefix", "b.", "--outliers", "keep"
    )
    assert done.exit_code == 0, done.output
    content = json.loads((tmp_path / "out.json").read_text())
    assert content["model"] == SMALL and content["checkpoint"]["file"] == "scn.pth"
    other = load_graph(OTHER)
    with pytest.raises(CalibrationError, match=r"checkpoint scn\.pth .* loaded without a checkpoint"):
        quant.load_cache(other, tmp_path / "out.json")
    assert run(*options, "--checkpoint-prefix", "b.").exit_code == 1


def test_a_fraction_is_no_percentile(folder: Path) -> None:
    done = run("--model", GRAPH, "--frames", folder, "-o", folder / "o.json", "--percentile", 0.9999)
    assert done.exit_code == 1 and "Did you mean 99.99?" in done.stderr


def test_warnings_of_other_packages_are_hidden(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for options, expected in (([], 0), (["default"], 2)):
        monkeypatch.setattr(sys, "warnoptions", options)
        with warnings.catch_warnings(), tidy_warnings():
            shown = warnings.catch_warnings(record=True)
            with shown as found:
                warnings.warn("of another package", DeprecationWarning, stacklevel=1)
                warnings.warn("of another package", UserWarning, stacklevel=1)
            assert len(found) == expected
            warnings.warn("Layers \x1b differ.", CaptureWarning, stacklevel=1)
        assert capsys.readouterr().err == "Warning: Layers \\x1b differ.\n"
