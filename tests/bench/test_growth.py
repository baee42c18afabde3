# SPDX-License-Identifier: Apache-2.0
"""`python -m benchmarks growth`: its frames, what it times, its picture, and its errors."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.__main__ import main
from benchmarks.growth import frames, run
from benchmarks.growth.frames import Size, grown_frame, make_batch, sizes_of
from benchmarks.growth.run import run_growth
from scn_fx.bench.gpu.device import Sample
from scn_fx.bench.model import prepare_model
from scn_fx.bench.peer import SpconvPeer
from scn_fx.errors import ArgumentError
from scn_fx.lidar import CENTERPOINT_GRID, embedded_frame, synthetic_points, voxelize
from scn_fx.runtime import Engine

TINY = ["growth", "--small", "--voxels", "120,240", "--batches", "1,3", "--batch-voxels", "120"]
ROWS = [("spconv", "fp32"), ("scn-fx", "fp32"), ("scn-fx", "fp16"), ("scn-fx", "int8")]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keeps the small network's files."""
    return tmp_path_factory.mktemp("growth")


def test_sizes_are_measured_once() -> None:
    assert sizes_of((80, 17), (4, 1), 80) == [Size(1, 17), Size(1, 80), Size(4, 80)]


def test_a_grown_frame_is_the_newest_part_of_a_sweep() -> None:
    features, indices = grown_frame(3000)
    assert 2997 <= len(indices) <= 3000
    everything = {tuple(row) for row in voxelize(synthetic_points(0), CENTERPOINT_GRID).indices.tolist()}
    assert {tuple(row) for row in indices.tolist()} <= everything
    assert features.dtype == np.float16 and (features[:, 4] == 0).all()  # of the newest turn


def test_a_denser_sensor_sees_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "SENSORS", ((16, 400, 1), (32, 400, 1)))
    frames._points.cache_clear()
    most = [len(voxelize(frames._points(number, 1), CENTERPOINT_GRID)) for number in (0, 1)]
    try:
        assert len(grown_frame(most[0] + 100, 1)[1]) == pytest.approx(most[0] + 100, rel=1e-3)
        with pytest.raises(ArgumentError, match=f"A frame may have {most[1]:,} voxels.* Ask for fewer"):
            grown_frame(2 * most[1], 1)
    finally:
        frames._points.cache_clear()
        grown_frame.cache_clear()


def test_the_sparsest_sensor_is_the_synthetic_frame() -> None:
    whole = embedded_frame(0)
    features, indices = grown_frame(len(whole))
    assert np.array_equal(indices, whole.indices) and np.array_equal(features, whole.features)


def test_every_size_runs_beside_spconv(
    workdir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "growth.json"
    assert main([*TINY, "--repeat", "2", "--workdir", str(workdir), "--json", str(file)]) == 0
    report, shown = json.loads(file.read_text()), capsys.readouterr().out
    assert (report["device"], report["skipped"], report["settings"]["batch_voxels"]) == ("cpu", [], 120)
    assert [(frame["batch"], frame["voxels"]) for frame in report["frames"]] == [(1, 120), (1, 240), (3, 120)]
    assert report["frames"][2]["voxels_in_all"] > 2 * report["frames"][0]["voxels_in_all"]
    pairs = [frame["active_pairs"] for frame in report["frames"]]
    assert pairs[0] < pairs[1] and 2 * pairs[0] < pairs[2] < 4 * pairs[0]
    for frame in report["frames"]:
        assert [(row["engine"], row["precision"]) for row in frame["runs"]] == ROWS
        assert f"{frame['voxels_in_all']:,}" in shown
        eager = frame["runs"][0]["wall"]["milliseconds"]["median"]
        for row in frame["runs"]:
            times = row["wall"]["milliseconds"]
            assert len(times["repetitions"]) == 2 and f"{times['median']:.2f} (" in shown
            each = times["median"] / frame["active_pairs"] * 1e6
            assert row["wall"]["ms_per_million_pairs"] == pytest.approx(each)
            over = row["wall"]["speedup"]
            assert (over is None) == (row["engine"] == "spconv")
            assert over is None or over["median"] == pytest.approx(eager / times["median"])


def test_engine_and_spconv_run_the_whole_batch(workdir: Path) -> None:
    files = prepare_model(workdir, small=True)
    batch = make_batch(Size(3, 120), small=True)
    peer = SpconvPeer(files)
    peer.load(batch.features, batch.indices, 3)
    engine = Engine(files.single, precision="fp32", threads=1)
    assert peer(1).shape == engine(batch.features, batch.indices, 3).shape
    assert peer(1).shape[0] == 3 and all(sample.any() for sample in peer(1))


def test_layers_may_have_as_many_sites_as_the_batch(workdir: Path, tmp_path: Path) -> None:
    from scn_fx.files.onnx_models import read_model

    files = prepare_model(workdir, small=True)
    widened = run._widened(files, 10**6, tmp_path)
    for file in (widened.int8, widened.single):
        bounds = {node["attributes"].get("output_bound") for node in read_model(file)["nodes"]} - {None}
        assert bounds == {10**6}
    assert widened.weights == files.weights


@pytest.mark.parametrize(("name", "begins"), [("growth.svg", b"<?xml"), ("growth.PNG", b"\x89PNG")])
def test_the_picture(
    workdir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, begins: bytes
) -> None:
    file = tmp_path / name
    assert main([*TINY, "--repeat", "1", "--workdir", str(workdir), "--plot", str(file)]) == 0
    assert f"saved {file}" in capsys.readouterr().out.replace("\n", "")
    made = file.read_bytes()
    assert made.startswith(begins)
    if name.endswith("svg"):  # glyphs are paths, their texts comments
        text = made.decode()
        for wanted in ("voxels of a frame", "frames of about 120 voxels in a batch", "time of a run (ms)"):
            assert wanted in text
        assert all(f"{engine} {precision}" in text for engine, precision in ROWS)


def test_a_picture_needs_matplotlib_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr(run, "run_growth", lambda *_, **__: pytest.fail("it measured"))
    assert main([*TINY, "--plot", str(tmp_path / "growth.svg")]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "matplotlib" in said and "pip install 'scn-fx[plot]'" in said


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--plot", "growth.pdf"], "--plot writes .svg or .png files, got 'growth.pdf'"),
        (["--voxels", "17k"], "--voxels must be whole numbers from 2 on with commas between"),
        (["--batches", "0,2"], "--batches must be whole numbers from 1 on"),
        (["--device", "tpu"], "device must be"),
    ],
)
def test_wrong_options(given: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["growth", "--small", *given]) == 1
    assert message in " ".join(capsys.readouterr().err.split())


class FakeGpu:
    """The CPU, on which spconv does not run, and a call lasts 2 ms, 1 ms more with the wait for it."""

    name = "a GPU"

    def __init__(self, number: int) -> None:
        assert number == 1

    def upload(self, frame: Any) -> Any:
        return tuple(frame)

    def peer(self, files: Any) -> Any:
        raise RuntimeError("no kernel image\nand more")

    def measure(self, work: Callable[[], Any]) -> Sample:
        work()
        return Sample(2e-3, 3e-3)


def test_a_gpu_has_two_clocks_and_engines_for_the_batch(
    workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def made(file: Any, device: str = "cpu", **options: Any) -> Engine:
        if device != "cpu":
            asked.append((device, options.pop("max_batch_size"), options.pop("max_voxels")))
        return Engine(file, **options)

    monkeypatch.setattr(run, "Gpu", FakeGpu)
    monkeypatch.setattr(run, "Engine", made)
    sizes = [Size(1, 120), Size(2, 120)]
    report = run_growth(sizes, device="cuda", number=1, repeat=3, warmup=0, small=True, workdir=workdir)
    assert (report["device"], report["skipped"]) == ("a GPU", ["spconv: no kernel image"])
    voxels = [frame["voxels_in_all"] for frame in report["frames"]]
    assert asked == [("cuda:1", batch, 2 * voxels[batch - 1]) for batch in (1, 1, 2, 2)]
    for frame in report["frames"]:
        assert [row["precision"] for row in frame["runs"]] == ["fp16", "int8"]
        for row in frame["runs"]:
            assert row["event"]["milliseconds"]["p90"] == pytest.approx(2.0)
            assert row["wall"]["milliseconds"]["p10"] == pytest.approx(3.0)
            assert row["wall"]["speedup"] is None
