# SPDX-License-Identifier: Apache-2.0
"""The benchmark on a GPU, with a fake one: subjects, ratios, tables, goals, and errors without a GPU."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import __main__ as driver
from benchmarks.gpu_goals import check_gpu_goals
from scn_fx import _core
from scn_fx.bench.frames import find_frames
from scn_fx.bench.gpu import job
from scn_fx.bench.gpu.device import Gpu, Sample
from scn_fx.bench.gpu.job import GpuSubject, gpu_rows, run_gpu_bench
from scn_fx.bench.gpu.peer import SpconvGpuPeer, fuse_activations
from scn_fx.bench.gpu.stages import TENSOR_RATES, stage_rows
from scn_fx.bench.model import ModelFiles, find_model, prepare_model
from scn_fx.bench.peer import SpconvPeer, folded_encoder
from scn_fx.bench.settings import BenchSettings, CpuSettings, GpuSettings
from scn_fx.cli.bench import make_settings
from scn_fx.cli.gpu_bench_tables import print_gpu_report
from scn_fx.errors import ArgumentError
from scn_fx.lidar import Frame
from scn_fx.runtime import Engine
from scn_fx.runtime.engine import StageTime
from tests.cli.conftest import invoke

H100 = "NVIDIA H100 80GB HBM3"


class FakeEngine(Engine):
    """The CPU engine, whose calls take `copy` and last as long as the clock of `FakeGpu` says."""

    def __init__(self, file: Path, precision: str | None, milliseconds: float) -> None:
        super().__init__(file, precision=precision, threads=1)
        self.milliseconds = milliseconds


class FakePeer:
    milliseconds = 2.0

    def load(self, features: Any, indices: Any) -> None:
        self.frame = features, indices

    def __call__(self) -> None:
        assert len(self.frame) == 2


class FakeGpu:
    """fp16 takes 0.4 ms, int8 half of it, a graph saves half, waiting costs 0.1 ms; engines take 100 MB."""

    name = H100
    peer_problem = ""

    def __init__(self, number: int) -> None:
        self.number, self.used = number, 10**9

    def used_bytes(self) -> int:
        return self.used

    def upload(self, frame: Frame) -> tuple[Any, Any]:
        return frame.features, frame.indices

    def engine(self, file: Path, precision: str | None, graph: bool) -> Engine:
        self.used += 100_000_000
        slow = 0.4 if file.name == "float.onnx" else 0.2
        return FakeEngine(file, precision, slow / 2 if graph else slow)

    def peer(self, files: ModelFiles) -> FakePeer:
        if self.peer_problem:
            raise RuntimeError(self.peer_problem)
        return FakePeer()

    def measure(self, run: Callable[[], Any]) -> Sample:
        run()
        subject: Any = getattr(run, "func", run)
        return Sample(subject.milliseconds / 1e3, (subject.milliseconds + 0.1) / 1e3)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gpu_bench")


@pytest.fixture(scope="module")
def files(workdir: Path) -> ModelFiles:
    return prepare_model(workdir, small=True)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> type[FakeGpu]:
    class Fake(FakeGpu):
        """Of one test, which may change it."""

    monkeypatch.setattr(job, "Gpu", Fake)
    return Fake


@pytest.fixture
def report(workdir: Path, files: ModelFiles, gpu: type[FakeGpu]) -> dict[str, Any]:
    return run_gpu_bench(GpuSettings(small=True, repeat=2, warmup=1, workdir=workdir))


def test_every_subject_is_timed_on_both_clocks_beside_spconv(report: dict[str, Any]) -> None:
    (frame,) = report["frames"]
    runs = {(r["engine"], r["precision"], r["graph"]): r for r in frame["runs"]}
    precisions = ("fp16", "int8")
    engines = [("scn-fx", precision, graph) for precision in precisions for graph in (False, True)]
    assert list(runs) == [("spconv", "fp16", False), *engines]
    assert runs["spconv", "fp16", False]["event"]["speedup"] is None
    best = runs["scn-fx", "int8", True]
    ms = best["event"]["milliseconds"]
    assert (ms["median"], ms["p10"], ms["p90"]) == pytest.approx((0.1, 0.1, 0.1))
    assert best["wall"]["milliseconds"]["median"] == pytest.approx(0.2)
    assert best["event"]["speedup"] == pytest.approx({"median": 20.0, "p10": 20.0, "p90": 20.0})
    assert best["wall"]["speedup"]["median"] == pytest.approx(10.5)
    assert [row["construction_bytes"] for row in report["memory"]["rows"]] == [100_000_000] * 4
    assert report["skipped"] == [] and report["device"] == {"name": H100, "number": 0}


def test_convolutions_have_a_limit_where_the_gpu_is_known(
    report: dict[str, Any], workdir: Path, gpu: type[FakeGpu], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [row for row in report["stages"]["rows"] if row["kind"] == "convolution"]
    assert len(rows) == 21 and report["stages"]["runs"] == 2
    for row in rows:
        assert row["limit"] == pytest.approx(2e6 * row["macs"] / TENSOR_RATES[H100][row["precision"]])
    print_gpu_report(report)
    text = capsys.readouterr().out
    assert "limit µs" in text and "0.1000 (0.1000 to 0.1000)" in text and "20.00 (20.00 to 20.00)" in text
    gpu.name, gpu.peer_problem = "another GPU", "no kernel image\nand more"
    found = run_gpu_bench(GpuSettings(small=True, repeat=1, warmup=0, workdir=workdir))
    print_gpu_report(found)
    text = capsys.readouterr().out
    assert "limit µs" not in text and "left out: spconv: no kernel image\n" in text
    assert all(run["event"]["speedup"] is None for run in found["frames"][0]["runs"])


def test_percentiles_and_ratios_of_rounds() -> None:
    samples = [Sample(ms / 1e3, 1.0) for ms in range(1, 12)]
    peer = [Sample(sample.event * 3, 1.0) for sample in samples]
    subjects = {GpuSubject("spconv", "fp16", False): peer, GpuSubject("scn-fx", "int8", True): samples}
    _, row = gpu_rows(subjects)
    ms = row["event"]["milliseconds"]
    assert (ms["median"], ms["p10"], ms["p90"]) == pytest.approx((6.0, 2.0, 10.0))
    assert row["event"]["speedup"] == pytest.approx({"median": 3.0, "p10": 3.0, "p90": 3.0})


def test_stages_are_medians_and_belong_together() -> None:
    def profile(us: float) -> list[StageTime]:
        return [StageTime("load", "input", us * 1e-6, 0), StageTime("convolution", "a", us * 1e-6, 0)]

    profiles = [profile(1.0), profile(5.0), profile(3.0)]
    load, a = stage_rows(profiles, {"a": "int8"}, {"a": 10**9}, {"int8": 1e15})
    assert (load.microseconds, load.limit, load.macs) == (pytest.approx(3.0), None, 0)
    assert a.limit == pytest.approx(2.0) and a.to_dict()["precision"] == "int8"
    for wrong in ([], [profile(1.0), profile(1.0)[:1]]):
        with pytest.raises(ArgumentError, match="one engine on one frame"):
            stage_rows(wrong, {}, {}, {})


def test_settings_name_a_gpu() -> None:
    assert GpuSettings(device="cuda:3").number == 3 and GpuSettings().number == 0
    for wrong in ({"device": "cuda:x"}, {"repeat": 0}):
        with pytest.raises(ArgumentError):
            GpuSettings(**wrong)  # type: ignore[arg-type]


def test_each_device_has_only_the_settings_that_it_knows() -> None:
    cpu, gpu, both = ({field.name for field in fields(s)} for s in (CpuSettings, GpuSettings, BenchSettings))
    assert (cpu - both, gpu - both) == ({"threads", "memory"}, {"device"})
    words: dict[str, Any] = {"threads": "1,2", "precision": None, "repeat": None, "no_spconv": True}
    made = make_settings(device="cuda:1", memory=True, workdir=None, **words)
    assert made == GpuSettings(device="cuda:1", spconv=False)


def test_a_call_lies_between_two_events_and_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    did: list[str] = []

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            did.append("event")

        def synchronize(self) -> None:
            did.append("wait")

        def elapsed_time(self, end: Event) -> float:
            return 2.0

    monkeypatch.setattr("scn_fx.bench.gpu.device.check_device", lambda number: None)
    fakes = {
        "is_available": lambda: True,
        "set_device": lambda number: None,
        "get_device_name": lambda number: f"GPU {number}",
        "mem_get_info": lambda number: (30, 100),
        "synchronize": lambda: did.append("sync"),
        "Event": Event,
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    gpu = Gpu(1)
    sample = gpu.measure(lambda: did.append("run"))
    assert did == ["sync", "event", "run", "event", "wait", "sync", "run", "sync"]
    assert sample.event == pytest.approx(0.002) and sample.wall > 0
    assert gpu.name == "GPU 1" and gpu.used_bytes() == 70
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ArgumentError, match="cannot use the GPU"):
        Gpu(1)


def test_without_a_gpu_the_error_says_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reason = "There is no NVIDIA driver on this machine."
    monkeypatch.setattr(_core, "cuda_info", lambda: {"problem": reason, "devices": []})
    assert reason in invoke("bench", "--device", "cuda", code=1).stderr
    assert driver.main(["--device", "cuda:1"]) == 1
    error = capsys.readouterr().err
    assert "'cuda:1' cannot be used" in error and reason in error


def test_files_of_another_machine_serve(tmp_path: Path) -> None:
    for age, name in enumerate(("centerpoint-0a", "centerpoint-small-1b", "centerpoint-2c")):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (age, age))
    assert find_model(tmp_path).int8 == tmp_path / "centerpoint-2c" / "int8.onnx"
    assert find_model(tmp_path, small=True).weights.parent.name == "centerpoint-small-1b"


def test_the_files_of_these_sources_come_first(workdir: Path, files: ModelFiles) -> None:
    assert find_model(workdir, small=True) == files


def test_spconv_without_cuda_is_left_out(files: ModelFiles) -> None:
    from spconv.cppconstants import CPU_ONLY_BUILD

    if CPU_ONLY_BUILD:
        with pytest.raises(ArgumentError, match="spconv has no CUDA"):
            SpconvGpuPeer(files, "cuda")


def test_fused_activations_compute_the_same_network(files: ModelFiles) -> None:
    """spconv's CPU build has no activations: here a hook behind each convolution computes them."""
    from cumm import tensorview as tv
    from spconv.core import ConvAlgo
    from spconv.pytorch.conv import SparseConvolution

    none, fused = tv.gemm.Activation.None_, []
    model: Any = fuse_activations(folded_encoder(files))

    def activate(module: Any, inputs: Any, output: Any) -> Any:
        return output.replace_feature(torch.relu(output.features))

    for module in model.modules():
        assert not isinstance(module, torch.nn.ReLU | torch.nn.Identity)
        if isinstance(module, SparseConvolution):
            module.algo = ConvAlgo.Native
            if module.act_type != none:
                fused.append(module)
                module.act_type = none
                module.register_forward_hook(activate)
    assert len(fused) == 13  # the other 8 are the second ones of the residual blocks
    frame = find_frames(small=True).frames[0]
    peer = SpconvPeer(files)
    peer.load(frame.features, frame.indices)
    arrays = torch.from_numpy(frame.features).float(), torch.from_numpy(frame.indices)
    with torch.inference_mode():
        result = model(*model.arguments(*arrays))[0]
    np.testing.assert_allclose(result.numpy(), peer(1).numpy(), rtol=1e-5, atol=1e-6)


def test_goals_are_for_one_gpu_and_one_frame(report: dict[str, Any]) -> None:
    assert check_gpu_goals(report) == []
    report["settings"]["network"] = "CenterPoint sparse encoder"
    report["frames"][0].update(frame="nuscenes_voxels", voxels=79_745)
    report["memory"]["frame"] = "nuscenes_voxels"
    goals = check_gpu_goals(report)
    assert len(goals) == 8 and all(goal.reached for goal in goals)
    slow = copy.deepcopy(report)
    for run in slow["frames"][0]["runs"]:
        run["event"]["milliseconds"]["median"] = 0.32
    slow["memory"]["rows"][0]["first_frame_bytes"] = 260_000_000
    missed = [goal.text for goal in check_gpu_goals(slow) if goal.reached is False]
    assert missed == [
        "int8, graph, nuscenes_voxels",
        "fp16, graph, nuscenes_voxels",
        "GPU memory, fp16, no graph",
    ]
    other = {**report, "device": {"name": "another GPU", "number": 0}}
    assert check_gpu_goals(other) == []


def test_the_driver_prints_and_keeps_the_report(
    report: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(driver, "measure", lambda settings, say: seen.append(settings) or report)
    assert driver.main(["--device", "cuda", "--json", str(tmp_path / "report.json")]) == 0
    (settings,) = seen
    assert isinstance(settings, GpuSettings)
    assert (settings.precisions, settings.repeat) == (("fp16", "int8"), 100)
    assert '"stages"' in (tmp_path / "report.json").read_text()
    assert "MB of GPU memory" in capsys.readouterr().out
