# SPDX-License-Identifier: Apache-2.0
"""The CUDA engine has the bits of the CPU engine wherever one answer exists, and is near it elsewhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from scn_fx import Engine, _core
from scn_fx.errors import ArgumentError
from scn_fx.lidar import embedded_frame
from tests.gpu.networks import small_network
from tests.oracle.centerpoint import centerpoint_onnx
from tests.oracle.compare import assert_same_bits, assert_within, cosine
from tests.oracle.frames import GRID, Frame, available_frames, load_frame, random_sites
from tests.oracle.geometry import align
from tests.oracle.network import run_network
from tests.oracle.random_networks import RandomNetwork, networks, wide_network

pytestmark = pytest.mark.gpu

SEEDS = 220
"""Wide int8 networks."""


def assert_same_outputs(got: list[Any], expected: list[Any], what: str) -> None:
    """Arrays, and pairs of features and indices, are the same bit by bit and in the same order."""
    assert len(got) == len(expected)
    for number, (left, right) in enumerate(zip(got, expected, strict=True)):
        assert isinstance(left, tuple) == isinstance(right, tuple), what
        parts = zip(left, right, strict=True) if isinstance(left, tuple) else [(left, right)]
        for a, b in parts:
            assert_same_bits(a, b, f"{what}, output {number}")


def run(core: Any, frame: tuple[Any, ...]) -> list[Any]:
    """One frame from host memory through a compiled CUDA engine."""
    core.enqueue(*frame)
    outputs: list[Any] = core.to_host()
    return outputs


def frame_of(network: RandomNetwork) -> tuple[Any, ...]:
    return network.features, network.sites, network.batch_size


def assert_like_the_cpu(network: RandomNetwork, what: str) -> None:
    expected = _core.Engine(network.onnx).run(*frame_of(network))
    for graph in (True, False):
        core = _core.CudaEngine(network.onnx, graph=graph, max_batch=network.batch_size)
        for number in range(2):
            label = f"{what}, graph {graph}, run {number}"
            assert_same_outputs(run(core, frame_of(network)), expected, label)


def fits_a_gpu(network: RandomNetwork) -> bool:
    """Whether each result is read in few enough forms; tests/plan has the others, which are refused."""
    try:
        _core.plan_onnx(network.onnx, "cuda")
    except ArgumentError as error:
        if "different forms" not in str(error):
            raise
        return False
    return True


@settings(max_examples=200)
@given(networks(exact=True).filter(fits_a_gpu))
def test_exact_networks_have_the_bits_of_the_cpu(network: RandomNetwork) -> None:
    assert_like_the_cpu(network, repr(network))


@pytest.mark.parametrize("seed", range(SEEDS))
def test_wide_int8_networks_have_the_bits_of_the_cpu(seed: int) -> None:
    network = wide_network(seed, "int8")
    assert_like_the_cpu(network, network.summary)


@pytest.mark.parametrize("seed", range(0, SEEDS, 4))
def test_the_kernels_of_other_gpus_have_the_same_bits(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCN_FX_CUDA_KERNELS", "generic")
    network = wide_network(seed, "int8")
    assert_like_the_cpu(network, network.summary)


def judge_each_node(network: RandomNetwork, precision: str = "") -> None:
    """Each node, given the engine's own values of its inputs, is within the bound of its summation order."""
    core = _core.CudaEngine(network.onnx, precision, max_batch=network.batch_size, graph=False, trace=True)
    arguments = network.onnx, network.features, network.sites, network.batch_size
    shapes = run_network(*arguments, precision=precision or None)
    traced = {}
    for node in core.trace(*frame_of(network)):
        values, sites, want = node["values"], node["indices"], shapes.nodes[node["name"]]
        assert (sites is None) == (want.sites is None), node["name"]
        traced[node["name"]] = values if sites is None else values[align(want.sites, sites)]
    expected = run_network(*arguments, precision=precision or None, given=traced, bounds=True)
    assert traced.keys() == expected.nodes.keys()
    for name, want in expected.nodes.items():
        what = f"{want.op_type} {name} of {network!r}"
        if want.bound is None:
            assert_same_bits(traced[name], want.values, what)
        else:
            assert traced[name].dtype == want.values.dtype, what
            assert_within(traced[name], want.values, want.bound, what)


@settings(max_examples=100)
@given(networks(exact=False).filter(fits_a_gpu))
def test_every_node_of_mixed_networks_is_right(network: RandomNetwork) -> None:
    judge_each_node(network)


@settings(max_examples=50)
@given(networks(exact=False).filter(fits_a_gpu))
def test_every_node_is_right_in_fp32(network: RandomNetwork) -> None:
    judge_each_node(network, "fp32")


@pytest.mark.parametrize("seed", range(1000, 1060))
def test_every_node_of_wide_fp16_networks_is_right(seed: int) -> None:
    judge_each_node(wide_network(seed, "fp16"))


@settings(max_examples=100)
@given(networks(exact=False).filter(fits_a_gpu))
def test_fused_traced_and_repeated_runs_agree_bit_by_bit(network: RandomNetwork) -> None:
    """Free orders of summation, but always the same one."""
    core = _core.CudaEngine(network.onnx, max_batch=network.batch_size)
    tracing = _core.CudaEngine(network.onnx, max_batch=network.batch_size, graph=False, trace=True)
    expected = run(tracing, frame_of(network))
    for number in range(3):
        assert_same_outputs(run(core, frame_of(network)), expected, f"run {number}")


@pytest.fixture(scope="module", params=[*available_frames(), "embedded"])
def encoder(request: pytest.FixtureRequest) -> tuple[Frame, bytes]:
    """A frame, and an int8 encoder calibrated on it. The embedded frame is as large as a real one."""
    if request.param == "embedded":
        made = embedded_frame()
        features, indices = np.array(made.features, np.float16), np.array(made.indices, np.int32)
        frame = Frame("embedded", features, indices, GRID)
    else:
        frame = load_frame(request.param)
    return frame, centerpoint_onnx(frame)


def test_the_encoder_has_the_bits_of_the_cpu(encoder: tuple[Frame, bytes]) -> None:
    frame, data = encoder
    expected = Engine(data)(frame.features, frame.indices)
    assert 0.001 < np.count_nonzero(expected) / expected.size < 0.9
    for graph in (True, False):
        engine = Engine(data, "cuda", graph=graph)
        for number in range(3):
            dense = engine(frame.features, frame.indices)
            assert_same_bits(dense, expected, f"{frame.name}, graph {graph}, run {number}")


def test_every_node_of_the_encoder_has_the_bits_of_the_cpu(encoder: tuple[Frame, bytes]) -> None:
    frame, data = encoder
    expected = Engine(data).trace(frame.features, frame.indices)
    for got, want in zip(Engine(data, "cuda").trace(frame.features, frame.indices), expected, strict=True):
        assert (got.name, got.op_type) == (want.name, want.op_type)
        assert_same_bits(got.values, want.values, got.name)
        if want.indices is not None:
            np.testing.assert_array_equal(got.indices, want.indices, got.name)


def test_the_encoder_in_other_precisions_is_near_the_cpu(encoder: tuple[Frame, bytes]) -> None:
    frame, data = encoder
    expected = Engine(data, precision="fp32")(frame.features, frame.indices)
    dense = Engine(data, "cuda", precision="fp32")(frame.features, frame.indices)
    assert dense.dtype == np.float32
    assert cosine(dense, expected) > 0.999999


def test_order_of_sites_and_dtype_of_features_change_nothing(encoder: tuple[Frame, bytes]) -> None:
    frame, data = encoder
    engine = Engine(data, "cuda")
    expected = engine(frame.features, frame.indices)
    order = np.random.default_rng(0).permutation(len(frame.indices))
    dense = engine(frame.features[order].astype(np.float32), frame.indices[order])
    assert_same_bits(dense, expected, frame.name)


def test_frames_of_different_sizes_through_one_engine() -> None:
    """Nothing of a former frame may show, 0 and 1 voxels included."""
    for seed in range(12):
        network = wide_network(2000 + seed, "int8")
        cpu = _core.Engine(network.onnx)
        core = _core.CudaEngine(network.onnx, max_batch=network.batch_size)
        count = len(network.sites)
        for size in (count, 0, 1, count // 3, 0, count, min(count, 64), count):
            frame = network.features[:size], network.sites[:size], network.batch_size
            assert_same_outputs(run(core, frame), cpu.run(*frame), f"{network.summary}, {size} sites")


def test_batches_of_different_sizes_through_one_engine() -> None:
    rng = np.random.default_rng(5)
    data = small_network(batch_size=1)
    cpu, gpu = Engine(data), Engine(data, "cuda", max_batch_size=4)
    for batch_size in (4, 1, 3, 2, 4):
        sites = random_sites(rng, 60 * batch_size, (6, 10, 12), batch_size)
        features = rng.normal(size=(len(sites), 2)).astype(np.float16)
        expected = cpu(features, sites, batch_size)
        assert expected.shape[0] == batch_size
        assert_same_bits(gpu(features, sites, batch_size), expected, f"batch {batch_size}")


def test_the_engine_says_what_it_is(encoder: tuple[Frame, bytes]) -> None:
    frame, data = encoder
    engine = Engine(data, "cuda:0")
    assert engine.device == "cuda:0" and engine.threads is None and engine.isa is None
    plan, expected = engine.describe(), Engine(data).describe()
    # convolutions write dense maps themselves
    names = [step["name"] for step in expected["steps"] if step["kind"] != "scatter_dense"]
    assert [step["name"] for step in plan["steps"]] == names
    assert all(plan["buffer_bytes"][name] > 0 for name in ("weights", "activations", "kernel_maps", "sites"))
    stages = engine.profile(frame.features, frame.indices)
    names = {stage.name for stage in stages if stage.kind == "convolution"}
    assert names == {step["name"] for step in plan["steps"] if step["kind"] == "convolution"}
    assert sum(stage.seconds for stage in stages) > 0
    kernels = {step["name"]: step.get("kernel", "") for step in plan["steps"]}
    ran = {stage.name: stage.kernel for stage in stages if stage.kind == "convolution"}
    assert all(ran.values()) and ran == {name: kernels[name] for name in ran}
