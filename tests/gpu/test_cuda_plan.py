# SPDX-License-Identifier: Apache-2.0
"""Plans for a GPU run as their ONNX files do, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from scn_fx import Engine, _core, save_plan
from scn_fx.errors import ArgumentError, PlanError
from scn_fx.files.onnx_models import read_model
from tests.gpu.networks import small_network
from tests.gpu.test_cuda_engine import assert_same_outputs, frame_of, run
from tests.gpu.test_cuda_errors import FEATURES, SITES
from tests.oracle.compare import assert_same_bits
from tests.oracle.random_networks import wide_network
from tests.plan.plan_bytes import sealed, text_at

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_wide_networks_have_the_bits_of_their_onnx_files(precision: str) -> None:
    for seed in range(12):
        network = wide_network(seed, precision)
        options = {"max_batch": network.batch_size}
        plan = _core.plan_bytes(network.onnx, device=0, **options)
        expected = run(_core.CudaEngine(network.onnx, **options), frame_of(network))
        engine = _core.CudaEngine(plan)
        assert_same_outputs(run(engine, frame_of(network)), expected, network.summary)
        assert engine.describe() == _core.CudaEngine(network.onnx, **options).describe()


def test_a_plan_has_the_kind_of_its_gpu(tmp_path: Path) -> None:
    data = small_network()
    save_plan(data, tmp_path / "a.plan", "cuda", max_voxels=500)
    said = read_model(tmp_path / "a.plan")["plan"]
    architecture = _core.cuda_info()["devices"][0]["architecture"]
    assert said["kind"] == f"cuda-sm_{architecture}" and said["max_sites"] == 500
    engine = Engine(tmp_path / "a.plan", "cuda")
    assert_same_bits(engine(FEATURES, SITES), Engine(data, "cuda")(FEATURES, SITES))
    assert engine.trace(FEATURES, SITES)[0].name == "conv1.0"
    with pytest.raises(ArgumentError, match="the most sites: 500; this engine is asked for 600"):
        Engine(tmp_path / "a.plan", "cuda", max_voxels=600)
    with pytest.raises(ArgumentError, match="the largest batch: none; this engine is asked for 2"):
        Engine(tmp_path / "a.plan", "cuda", max_batch_size=2)
    with pytest.raises(PlanError, match=r"made for cuda-sm_.*, this engine runs on cpu-"):
        Engine(tmp_path / "a.plan")


def test_a_plan_of_another_gpu_is_refused() -> None:
    plan = _core.plan_bytes(small_network(), device=0)
    at, kind = text_at(plan, 1)
    other = b"cuda-sm_10" if len(kind) == 10 else b"cuda-sm_101"
    with pytest.raises(PlanError, match=f"made for {other.decode()}, this engine runs on {kind.decode()}"):
        Engine(sealed(plan[:at] + other + plan[at + len(kind) :]), "cuda")
