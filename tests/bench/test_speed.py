# SPDX-License-Identifier: Apache-2.0
"""`python -m benchmarks speed`: what it times, that all of it is one network, and what its goals read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.__main__ import main
from benchmarks.speed import run
from benchmarks.speed.cases import NETWORKS, Case, make_case, pillars
from benchmarks.speed.peers import fold_norms, make_peer, one_thread
from benchmarks.speed.run import Subject, goals_of, rows_of, run_speed
from scn_fx import zoo
from scn_fx.bench.gpu.device import Sample
from scn_fx.bench.gpu.peer import fuse_activations
from scn_fx.lidar import CENTERPOINT_GRID, Frame, voxelize
from scn_fx.runtime import Engine
from tests.bench.samples import timing

UNET, PILLARS = NETWORKS
EXPECTED = {
    "SpUNet": [("spconv", "eager"), ("spconv", "folded"), ("scn-fx", "libspconv"), ("scn-fx", "scn_fx")],
    "PillarNetEncoder": [("spconv", "eager"), ("spconv", "folded"), ("scn-fx", "libspconv")],
}


def test_both_networks_run_beside_spconv(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "report.json"
    assert main(["speed", "--small", "--voxels", "400", "--repeat", "2", "--json", str(file)]) == 0
    report, shown = json.loads(file.read_text()), capsys.readouterr().out
    assert (report["device"], report["skipped"], report["goals"]) == ("cpu", [], [])
    for network in report["networks"]:
        rows = network["runs"]
        assert [(row["engine"], row["variant"]) for row in rows] == EXPECTED[network["network"]]
        assert network["network"] in shown
        agreement = network["agreement"]  # it is the network that spconv runs, but for weights in float16
        assert list(agreement) == [
            name for engine, name in EXPECTED[network["network"]] if engine == "scn-fx"
        ]
        assert all(45 < decibels < 100 for decibels in agreement.values())
        for row in rows:
            times, over = row["wall"]["milliseconds"], row["wall"]["speedup"]
            assert len(times["repetitions"]) == 2 and f"{times['median']:.2f} (" in shown
            if row["engine"] == "scn-fx":
                assert row["precision"] == "int8" and f"{over['folded']['median']:.2f} (" in shown
                eager = rows[0]["wall"]["milliseconds"]["median"]
                assert over["eager"]["median"] == pytest.approx(eager / times["median"])
            else:
                assert (row["precision"], over) == ("fp32", {})
    assert [network["network"] for network in report["networks"]] == list(EXPECTED)


@pytest.fixture(scope="module")
def case() -> Case:
    return make_case(UNET, None, 300, small=True)


@pytest.fixture(scope="module")
def pillar_case() -> Case:
    return make_case(PILLARS, None, 300, small=True)


@pytest.fixture(params=["case", "pillar_case"])
def unbiased(request: pytest.FixtureRequest) -> Case:
    """A case whose BatchNorms add nothing, so that folding them into the weights changes no result."""
    made: Case = request.getfixturevalue(request.param)
    for module in made.model.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            scale: Any = module.weight / torch.sqrt(module.running_var + module.eps)  # type: ignore[operator]
            module.bias.data = (module.running_mean * scale).detach()  # type: ignore[operator]
    return made


def test_folded_weights_compute_the_same_network(unbiased: Case) -> None:
    with one_thread():
        eager, folded = (make_peer(kind, unbiased.model, *unbiased.tensors)() for kind in ("eager", "folded"))
    assert eager.abs().max() > 0.1
    torch.testing.assert_close(folded, eager, rtol=1e-4, atol=1e-4)
    norms = [m for m in unbiased.model.modules() if isinstance(m, torch.nn.BatchNorm1d)]
    assert len(norms) > 15  # the model itself is as it was


def test_fused_activations_compute_the_same_network(unbiased: Case) -> None:
    """spconv's CPU build has no activations: here a hook behind each convolution computes them."""
    from cumm import tensorview as tv
    from spconv.pytorch.conv import SparseConvolution

    from benchmarks.speed.peers import Peer

    with one_thread():
        folded = make_peer("folded", unbiased.model, *unbiased.tensors)
        wanted = folded()
        model = fuse_activations(folded._model)
        for module in model.modules():
            assert not isinstance(module, torch.nn.ReLU | torch.nn.Identity | torch.nn.BatchNorm1d)
            if isinstance(module, SparseConvolution) and module.act_type != tv.gemm.Activation.None_:
                assert not module.conv1x1  # those have none in spconv
                module.act_type = tv.gemm.Activation.None_
                module.register_forward_hook(lambda _, __, x: x.replace_feature(torch.relu(x.features)))
        torch.testing.assert_close(Peer(model, *unbiased.tensors)(), wanted, rtol=1e-5, atol=1e-6)


def test_every_norm_is_folded() -> None:
    model = zoo.SpUNet()
    fold_norms(model)
    assert not [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm1d)]


def test_pillars_hold_the_largest_of_their_voxels() -> None:
    features = torch.tensor([[0.0, 1.0], [2.0, 5.0], [4.0, 3.0]])
    indices = torch.tensor([[0, 1, 2, 3], [0, 5, 2, 3], [0, 1, 0, 3]], dtype=torch.int32)
    made, sites = pillars(features, indices, 4)
    assert sites.tolist() == [[0, 0, 3], [0, 2, 3]] and sites.dtype == torch.int32
    alone = [pillars(features, indices + torch.arange(3)[:, None] * 10, 4)[0][row] for row in range(3)]
    torch.testing.assert_close(made, torch.stack([alone[2], torch.maximum(alone[0], alone[1])]))
    assert made.min() >= 0 and made.max() > 0


@pytest.mark.parametrize(("network", "shape"), [(UNET, (1440, 1440, 40)), (PILLARS, (1440, 1440))])
def test_a_real_frame_gives_the_network_its_grid(network: Any, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    points = (rng.normal(size=(900, 5)) * [1.5, 1.5, 0.5, 1, 0] + [3, 2, -1, 0, 0]).astype(np.float32)
    frame = Frame("sweep", *voxelize(points, CENTERPOINT_GRID), CENTERPOINT_GRID, "made here")
    made = make_case(network, frame, 0, small=True)
    assert made.model.grid == shape
    assert (made.frame, made.source, made.voxels) == ("sweep", "made here", len(frame))
    width, columns = (32, 3) if network.pillars else (5, 4)
    assert made.features.shape[1] == width and made.indices.shape == (len(made.features), columns)
    assert made.features.dtype == np.float16 and not any(
        getattr(m, "bias", None) is not None for m in made.model.modules() if hasattr(m, "indice_key")
    )


class FakeGpu:
    """The CPU, on which a call lasts 2 ms, with a graph 1 ms, and 1 ms more with the wait for it."""

    name = "a GPU"

    def __init__(self, number: int) -> None:
        assert number == 1

    def upload(self, frame: Case) -> Any:
        return frame.tensors

    def engine(self, file: Path, precision: str | None, graph: bool) -> Engine:
        made = Engine(file, precision=precision, threads=1)
        made.milliseconds = 1.0 if graph else 2.0  # type: ignore[attr-defined]
        return made

    def measure(self, work: Callable[[], Any]) -> Sample:
        ms = getattr(getattr(work, "func", work), "milliseconds", 16.0)
        return Sample(ms / 1e3, (ms + 1) / 1e3)


def test_a_gpu_has_two_clocks_and_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    def made(kind: str, *given: Any) -> Any:
        if kind == "folded":
            raise RuntimeError("no kernel image\nand more")
        return make_peer(kind, *given)

    monkeypatch.setattr(run, "Gpu", FakeGpu)
    monkeypatch.setattr(run, "make_peer", made)
    report = run_speed([PILLARS], None, voxels=200, device="cuda", number=1, repeat=3, small=True)
    assert report["device"] == "a GPU"
    assert report["skipped"] == ["PillarNetEncoder, spconv folded: no kernel image"]
    (network,) = report["networks"]
    assert network["agreement"]["libspconv"] > 45
    eager, plain, graph = network["runs"]
    assert (eager["variant"], eager["precision"]) == ("eager", "fp16")
    assert (plain["graph"], graph["graph"]) == (False, True)
    assert plain["event"]["speedup"]["eager"]["median"] == pytest.approx(8.0)
    assert graph["event"]["speedup"]["eager"] == pytest.approx({"median": 16.0, "p10": 16.0, "p90": 16.0})
    assert graph["wall"]["speedup"]["eager"]["median"] == pytest.approx(8.5)


def _report(*rows: tuple[Subject, float]) -> dict[str, Any]:
    found = rows_of({subject: {"wall": timing(ms, ms)} for subject, ms in rows})
    return {"networks": [{"network": "net", "voxels": 80_000, "runs": list(found.values())}]}


def test_goals_take_the_fastest_of_both_sides() -> None:
    spconv = [(Subject("spconv", kind, "fp32"), ms) for kind, ms in (("eager", 80.0), ("folded", 60.0))]
    own = [(Subject("scn-fx", kind, "int8"), ms) for kind, ms in (("libspconv", 20.0), ("scn_fx", 10.0))]
    (goal,) = goals_of(_report(*spconv, *own), 5.0)
    assert (goal.found, goal.reached) == ("6.00 times (scn_fx)", True)
    (goal,) = goals_of(_report(*spconv, *own), 8.0)
    assert goal.reached is False and "net, 80,000 voxels" in goal.text
    (goal,) = goals_of(_report(*own), 5.0)
    assert (goal.found, goal.reached) == (None, None)


def test_a_missed_goal_is_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own = [(Subject("spconv", "eager", "fp32"), 40.0), (Subject("scn-fx", "scn_fx", "int8"), 10.0)]
    seen: list[Any] = []

    def fake(networks: Any, frame: Any, **options: Any) -> dict[str, Any]:
        seen.append((networks, frame, options))
        made = _report(*own)
        for network in made["networks"]:
            network.update(frame="demo", sites=1, agreement={})
        machine = {"cpu": "cpu", "isa": "avx2", "torch": "2", "spconv": None, "load": None}
        goals = [vars(goal) for goal in goals_of(made, 5.0)]
        return {**made, "device": "cpu", "machine": machine, "skipped": ["x"], "goals": goals, "seconds": 1.0}

    monkeypatch.delenv("SCN_FX_DATA", raising=False)
    monkeypatch.setattr(run, "run_speed", fake)
    assert main(["speed", "--only", "SpUNet"]) == 1
    assert "MISSED  int8 over spconv, net, 80,000 voxels" in capsys.readouterr().out
    networks, frame, options = seen[0]
    assert (networks, frame) == ([UNET], None)
    assert (options["voxels"], options["repeat"], options["device"]) == (80_000, 5, "cpu")
    assert main(["speed", "--device", "cuda:1", "--repeat", "7", "--voxels", "9"]) == 1
    _, _, options = seen[1]
    assert (options["voxels"], options["repeat"], options["device"], options["number"]) == (9, 7, "cuda", 1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--frames", "folder", "--small"], "take real frames"),
        (["--frame", "name", "--voxels", "9"], "take real frames"),
        (["--device", "tpu"], "device must be"),
    ],
)
def test_wrong_options(given: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["speed", *given]) == 1
    assert message in " ".join(capsys.readouterr().err.split())
