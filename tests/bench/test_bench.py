# SPDX-License-Identifier: Apache-2.0
"""The benchmark itself, with the small network: the command, its report, its files, its errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import __main__ as driver
from scn_fx.bench import frames, settings
from scn_fx.bench.machine import measured_peaks
from scn_fx.bench.model import ModelFiles, prepare_model
from scn_fx.bench.peer import SpconvPeer
from scn_fx.bench.settings import CpuSettings, parse_precisions, parse_threads
from scn_fx.cli.bench_tables import print_report
from scn_fx.errors import ArgumentError, LidarError
from scn_fx.lidar import write_tensor
from scn_fx.runtime import Engine
from tests.bench.samples import report as made_report
from tests.cli.conftest import invoke, invoke_json


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bench")


@pytest.fixture(scope="module")
def files(workdir: Path) -> ModelFiles:
    return prepare_model(workdir, small=True)


@pytest.fixture(scope="module")
def found(workdir: Path, files: ModelFiles) -> dict[str, Any]:
    """The report of the small network with one thread: spconv is at its best there on a busy machine."""
    arguments = ("--small", "--threads", "1", "--repeat", "2", "--memory", "--workdir", workdir)
    report: dict[str, Any] = invoke_json("bench", *arguments)
    return report


def test_the_report_has_every_subject_with_ratios_of_its_own_numbers(found: dict[str, Any]) -> None:
    (frame,) = found["frames"]
    runs = {(run["engine"], run["precision"]): run for run in frame["runs"]}
    assert list(runs) == [("spconv", "fp32"), ("scn-fx", "fp32"), ("scn-fx", "fp16"), ("scn-fx", "int8")]
    peer = runs["spconv", "fp32"]["milliseconds"]
    for key, run in runs.items():
        ms = run["milliseconds"]
        assert len(ms["repetitions"]) == 2 and 0 < ms["min"] <= ms["median"] <= ms["max"]
        assert run["scaling"] is None
        if key[0] == "scn-fx":
            assert run["speedup"]["median"] == pytest.approx(peer["median"] / ms["median"])
    assert frame["voxels"] > 500 and frame["macs"] > frame["active_pairs"] > frame["voxels"]
    assert found["growth"] == [] and found["machine"]["isa"] and found["settings"]["threads"] == [1]
    assert {peak["kind"] for peak in found["peaks"]} == {"fp32", "int8"}


def test_the_layer_table_covers_the_network(found: dict[str, Any]) -> None:
    layers = found["layers"]
    assert layers["precision"] == "int8" and layers["threads"] == 1 and layers["runs"] == 2
    convolutions = [row for row in layers["rows"] if row["kind"] == "convolution"]
    assert len(convolutions) == 21 and {row["precision"] for row in convolutions} == {"fp16", "int8"}
    assert all(row["gops"] > 0 for row in convolutions)
    sums = layers["totals"]
    (timed,) = (r for r in found["frames"][0]["runs"] if r["precision"] == "int8")
    assert layers["timed"] == timed["milliseconds"]["median"]
    assert sums["kernel maps"] > 0 and sums["convolutions"] > 0
    assert sums["total"] >= max(sums["kernel maps"], sums["convolutions"], sums["rest"])


def test_memory_is_that_of_a_process_without_torch(found: dict[str, Any]) -> None:
    assert [row["precision"] for row in found["memory"]] == ["fp32", "fp16", "int8"]
    for row in found["memory"]:
        assert row["unwanted"] == [] and row["output_bytes"] > 0
        stages = row["stages"]
        assert list(stages) == ["interpreter", "numpy", "import", "load", "frame", "first run", "last run"]
        # This process holds torch: a peak inherited from it would be several times larger.
        assert stages["interpreter"]["peak"] < 60e6
        assert stages["last run"]["peak"] >= stages["interpreter"]["rss"] > 1e6
    assert set(found["imports"]) == {"import scn_fx", "from scn_fx import Engine", "import numpy"}
    assert all(ms > 0 for ms in found["imports"].values())


def test_the_network_is_made_once(workdir: Path, files: ModelFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise AssertionError("made again")

    monkeypatch.setattr("scn_fx.bench.model._make", fail)
    assert prepare_model(workdir, small=True) == files
    assert [path.name for path in workdir.iterdir()] == [files.int8.parent.name], "nothing is left over"
    with pytest.raises(AssertionError, match="made again"):
        prepare_model(workdir / "other", small=True)
    assert list((workdir / "other").iterdir()) == [], "a failure leaves nothing behind"


def test_the_peer_computes_the_network_without_its_biases(files: ModelFiles) -> None:
    """The captured graph with all biases zero is what spconv must compute, on one thread."""
    from scn_fx.capture import capture
    from scn_fx.zoo import CenterPointEncoder

    frame = frames.find_frames(small=True).frames[0]
    model = CenterPointEncoder(5, files.channels, grid=files.grid, bias=False).eval()
    features, indices = torch.from_numpy(frame.features).float(), torch.from_numpy(frame.indices)
    graph = capture(model, model.arguments(features, indices))
    from scn_fx.graph import layers

    with np.load(files.weights) as weights, torch.no_grad():
        for layer in layers(graph):
            if layer.kind == "convolution":
                layer.weight.copy_(torch.from_numpy(weights[layer.name]))
                if layer.bias is not None:
                    layer.bias.zero_()
        wanted = graph(features, indices)
    peer = SpconvPeer(files)
    with pytest.raises(ArgumentError, match="load"):
        peer(1)
    peer.load(frame.features, frame.indices)
    threads = torch.get_num_threads()
    result = peer(1)
    assert torch.get_num_threads() == threads
    assert float(wanted.abs().max()) > 0
    torch.testing.assert_close(result, wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))


def test_the_files_hold_the_precisions_that_their_names_say(files: ModelFiles) -> None:
    for precision in ("fp32", "fp16", "int8"):
        file, option = files.source(precision)
        steps = Engine(file, precision=option, threads=1).describe()["steps"]
        kinds = [step["precision"] for step in steps if step["kind"] == "convolution"]
        assert kinds[-1] == precision and kinds.count(precision) >= 20


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--precision", "int4"), ["'int4'", "fp32, fp16, int8"]),
        (("--layers", "double"), ["'double'"]),
        (("--threads", "0"), ["at least 1", "got 0"]),
        (("--threads", "1,-2"), ["at least 1", "got -2"]),
        (("--threads", "two"), ["'two'", "1,2"]),
        (("--small", "--frame", "other"), ["'other'", "small"]),
        (("--frames", "nowhere"), ["nowhere"]),
    ],
)
def test_wrong_options_are_told_in_one_line(arguments: tuple[str, ...], words: list[str]) -> None:
    error = invoke("bench", *arguments, code=1).stderr
    assert error.startswith("Error: ") and error.count("\n") == 1
    assert all(word in error for word in words)


def test_settings_are_checked_and_have_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "processors", lambda: 4)
    assert CpuSettings().thread_counts == (1, 4) and CpuSettings().layer_precision == "int8"
    assert CpuSettings(threads=(2, 1, 2)).thread_counts == (1, 2)
    assert CpuSettings(layers="fp32").layer_precision == "fp32"
    assert parse_threads("1,2") == (1, 2) and parse_precisions("int8, fp32,int8") == ("int8", "fp32")
    for wrong in (
        {"threads": (0,)},
        {"precisions": ()},
        {"precisions": ("x",)},
        {"repeat": 0},
        {"layers": "x"},
    ):
        with pytest.raises(ArgumentError):
            CpuSettings(**wrong)  # type: ignore[arg-type]


def test_frames_of_a_folder_fit_the_network_or_are_left_out(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.uniform(-3, 3, (60, 3)), rng.uniform(0, 1, (60, 2))], axis=1)
    (points.astype(np.float16)).tofile(tmp_path / "sweep.bin")
    cells = np.array([[0, 1, 2, 3], [0, 4, 5, 6]], np.int32)
    for name, width in (("voxels", 5), ("narrow", 4)):
        write_tensor(tmp_path / f"{name}.features.tensor", np.ones((2, width), np.float16))
        write_tensor(tmp_path / f"{name}.indices.tensor", cells)
    found = frames.find_frames(tmp_path)
    assert [frame.name for frame in found.frames] == ["voxels", "sweep"]
    assert len(found.skipped) == 1 and found.skipped[0].startswith("narrow: 4 columns")
    assert [frame.name for frame in found.select(["sweep"]).frames] == ["sweep"]
    (tmp_path / "sweep.bin").unlink()
    (tmp_path / "voxels.features.tensor").unlink()
    (tmp_path / "voxels.indices.tensor").unlink()
    with pytest.raises(LidarError, match="narrow: 4 columns"):
        frames.find_frames(tmp_path)


def test_without_a_folder_frames_are_synthetic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SCN_FX_DATA", raising=False)
    small, large = frames.find_frames().frames
    assert (small.name, large.name) == ("synthetic_single_sweep", "synthetic") and len(small) < len(large)


def test_a_build_that_cannot_measure_its_peak_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scn_fx.bench.machine._core", object())
    assert measured_peaks(1) == {"fp32": None, "int8": None}


def test_tables_show_medians_ratios_and_what_was_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    print_report(made_report())
    text = capsys.readouterr().out
    assert "12.00 (12.00 to 12.00)" in text and "left out: kitti: 4 columns." in text
    assert "noisy" not in text
    assert "pairs grow 5.00 times" in text and "4.00 times" in text
    assert "arena 100.0 maps 40.0" in text and "kernel maps 8.00 ms" in text and "took 50.00 ms" in text


def test_the_command_prints_the_table_of_the_layers(workdir: Path, files: ModelFiles) -> None:
    options = ("--threads", "1", "--repeat", "1", "--precision", "fp32", "--no-spconv", "--workdir", workdir)
    text = invoke("bench", "--small", *options).output
    assert "small in fp32" in text and "conv4.4.conv2" in text and "convolutions" in text


def test_the_driver_judges_goals_and_writes_its_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(driver, "measure", lambda settings, say: made_report())
    assert driver.main(["--json", str(tmp_path / "report.json")]) == 0
    assert '"goals"' in (tmp_path / "report.json").read_text()
    assert "reached  int8 over spconv fp32" in capsys.readouterr().out
    monkeypatch.setattr(driver, "measure", lambda settings, say: made_report(int8=90.0))
    assert driver.main([]) == 1
    assert "MISSED  int8 over spconv fp32" in capsys.readouterr().out
    assert driver.main(["--threads", "0"]) == 1
    assert "at least 1" in capsys.readouterr().err
    assert driver.main(["--thread", "1"]) == 2
    assert "--threads" in capsys.readouterr().err
