# SPDX-License-Identifier: Apache-2.0
"""The engine against the oracle on whole networks: bit by bit where one answer exists, else node by node."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given

from scn_fx import _core
from tests.core.instruction_sets import SUPPORTED, instruction_set
from tests.oracle import builder, strategies
from tests.oracle.centerpoint import centerpoint_onnx
from tests.oracle.compare import assert_same_bits, assert_within, cosine
from tests.oracle.dialect import read_network
from tests.oracle.frames import Frame, random_sites
from tests.oracle.geometry import align
from tests.oracle.network import NodeValue, Result, run_network
from tests.oracle.random_networks import RandomNetwork, networks, wide_network

Array = npt.NDArray[np.generic]
every_isa = pytest.mark.parametrize("isa", SUPPORTED)


def _aligned(values: Array, sites: npt.NDArray[np.int32] | None, expected: NodeValue) -> Array:
    """The engine's rows in the oracle's order of sites."""
    if expected.sites is None:
        assert sites is None, f"{expected.name}: sparse, expected dense"
        return values
    assert sites is not None, f"{expected.name}: dense, expected sparse"
    return values[align(expected.sites, sites)]


def _assert_outputs(outputs: list[object], expected: tuple[NodeValue, ...], what: str = "") -> None:
    """Every output has the oracle's bits."""
    assert len(outputs) == len(expected)
    for number, (got, want) in enumerate(zip(outputs, expected, strict=True)):
        values, sites = got if isinstance(got, tuple) else (got, None)
        assert_same_bits(_aligned(values, sites, want), want.values, f"{what} output {number}")


def _run(network: RandomNetwork, **options: object) -> list[object]:
    engine = _core.Engine(network.onnx, **options)
    return engine.run(network.features, network.sites, network.batch_size)


@every_isa
@given(networks(exact=True))
def test_exact_networks_have_the_bits_of_the_oracle(isa: str, network: RandomNetwork) -> None:
    expected = run_network(network.onnx, network.features, network.sites, network.batch_size)
    with instruction_set(isa):
        for threads in (1, 2):
            _assert_outputs(_run(network, threads=threads), expected.outputs, f"{threads} threads,")


@every_isa
@pytest.mark.parametrize("seed", range(3000, 3030))
def test_wide_int8_networks_have_the_bits_of_the_oracle(isa: str, seed: int) -> None:
    network = wide_network(seed, "int8")
    expected = run_network(network.onnx, network.features, network.sites, network.batch_size)
    with instruction_set(isa):
        _assert_outputs(_run(network), expected.outputs, network.summary)


def _traced(network: RandomNetwork, precision: str = "") -> dict[str, tuple[Array, object]]:
    engine = _core.Engine(network.onnx, precision=precision, trace=True)
    nodes = engine.trace(network.features, network.sites, network.batch_size)
    return {node["name"]: (node["values"], node["indices"]) for node in nodes}


def _judge_each_node(network: RandomNetwork, precision: str | None) -> None:
    """Each node, given the engine's own values of its inputs, is within the bound of its summation order."""
    arguments = network.onnx, network.features, network.sites, network.batch_size
    shapes: Result = run_network(*arguments, precision=precision)
    traced = {
        name: _aligned(values, sites, shapes.nodes[name])
        for name, (values, sites) in _traced(network, precision or "").items()
    }
    assert traced.keys() == shapes.nodes.keys()
    expected = run_network(*arguments, precision=precision, given=traced, bounds=True)
    for name, want in expected.nodes.items():
        got, what = traced[name], f"{want.op_type} {name}"
        if want.bound is None:
            assert_same_bits(got, want.values, what)
        else:
            assert got.dtype == want.values.dtype, what
            assert_within(got, want.values, want.bound, what)


@every_isa
@given(networks(exact=False))
def test_every_node_of_mixed_networks_is_right(isa: str, network: RandomNetwork) -> None:
    with instruction_set(isa):
        _judge_each_node(network, None)


@given(networks(exact=False))
def test_every_node_is_right_in_fp32(network: RandomNetwork) -> None:
    _judge_each_node(network, "fp32")


@given(networks(exact=False))
def test_fused_and_traced_runs_agree_bit_by_bit(network: RandomNetwork) -> None:
    """Fusion changes where values are kept, never what they are; nor do threads or a second run."""
    nodes = read_network(network.onnx, "scn_fx")
    traced = _traced(network)
    made = {node.output: traced[node.name] for node in nodes.nodes}
    for threads in (1, 2):
        engine = _core.Engine(network.onnx, threads=threads)
        for run in range(2):
            outputs = engine.run(network.features, network.sites, network.batch_size)
            for got, name in zip(outputs, nodes.outputs, strict=True):
                values, sites = got if isinstance(got, tuple) else (got, None)
                assert_same_bits(values, made[name][0], f"{name}, {threads} threads, run {run}")
                assert (sites is None) == (made[name][1] is None)
                if sites is not None:
                    np.testing.assert_array_equal(sites, made[name][1])


@given(networks(exact=False, max_blocks=2))
def test_a_tracing_engine_runs_as_any_other(network: RandomNetwork) -> None:
    """`run` returns the graph's outputs, whether or not the engine keeps the values of its nodes."""
    for got, want in zip(_run(network, trace=True), _run(network), strict=True):
        for left, right in zip(*(v if isinstance(v, tuple) else (v,) for v in (got, want)), strict=True):
            np.testing.assert_array_equal(left, right)


@given(networks(exact=True, max_blocks=2))
def test_float32_features_of_float16_values_change_nothing(network: RandomNetwork) -> None:
    engine = _core.Engine(network.onnx)
    expected = run_network(network.onnx, network.features, network.sites, network.batch_size).outputs
    features = network.features.astype(np.float32)
    _assert_outputs(engine.run(features, network.sites, network.batch_size), expected)


@given(networks(exact=True, max_blocks=3))
def test_frames_of_different_sizes_through_one_engine(network: RandomNetwork) -> None:
    """Buffers grow and shrink; nothing of a former frame may show."""
    engine = _core.Engine(network.onnx)
    for count in (len(network.sites), len(network.sites) // 3, 0, len(network.sites)):
        frame = network.features[:count], network.sites[:count], network.batch_size
        _assert_outputs(engine.run(*frame), run_network(network.onnx, *frame).outputs, f"{count} sites,")


@pytest.fixture(scope="module")
def encoder(frame: Frame) -> tuple[Frame, bytes, Result]:
    """A frame, a calibrated encoder with random weights, and what the oracle says."""
    data = centerpoint_onnx(frame)
    return frame, data, run_network(data, frame.features, frame.indices)


@pytest.mark.parametrize("threads", [1, 2])
def test_default_precision_encoder_is_bit_identical(
    encoder: tuple[Frame, bytes, Result], threads: int
) -> None:
    frame, data, expected = encoder
    share = np.count_nonzero(expected.dense) / expected.dense.size
    assert 0.001 < share < 0.9 and np.isfinite(expected.dense).all(), "the network says nothing"
    engine = _core.Engine(data, threads=threads)
    for run in range(3):
        (dense,) = engine.run(frame.features, frame.indices)
        assert_same_bits(dense, expected.dense, f"run {run}")


def test_encoder_in_int8_is_near_its_fp32_self(encoder: tuple[Frame, bytes, Result]) -> None:
    frame, data, expected = encoder
    (dense,) = _core.Engine(data, precision="fp32").run(frame.features, frame.indices)
    assert dense.dtype == np.float32
    assert cosine(dense, expected.dense) > 0.9


def test_every_instruction_set_gives_the_same_encoder(encoder: tuple[Frame, bytes, Result]) -> None:
    frame, data, expected = encoder
    for isa in SUPPORTED:
        with instruction_set(isa):
            (dense,) = _core.Engine(data).run(frame.features, frame.indices)
            assert_same_bits(dense, expected.dense, isa)


@every_isa
@pytest.mark.parametrize("precision", ["int8", None])
def test_sums_of_sums(isa: str, precision: str | None) -> None:
    """Additions whose operands are additions, in every nesting of four values."""
    rng = np.random.default_rng(5)
    shape, sites = (4, 5, 6), random_sites(rng, 60, (4, 5, 6))
    same = {"input_shape": shape, "output_shape": shape, "subm": True, "padding": (1, 1, 1), "rulebook": "a"}
    for order in ([("0", "1"), ("2", "3"), ("s0", "s1")], [("0", "1"), ("s0", "2"), ("3", "s1")]):
        pieces = []
        for i in range(4):
            weight, bias = strategies.weights_for(rng, 8, (3, 3, 3), 4)
            ranges = {"input_range": 3.0, "weight_ranges": [0.3] * 8} if precision else {}
            pieces.append(
                builder.convolution(
                    f"{i}", "features", f"{i}", weight, bias, precision=precision,
                    output_precision=precision, **same, **ranges,
                )
            )  # fmt: skip
        for i, (left, right) in enumerate(order):
            pieces.append(
                builder.add(
                    f"s{i}", left, right, f"s{i}", precision=precision,
                    output_precision=precision if i < 2 else None,
                    ranges=(2.0 + i, 3.0 + i) if precision else None,
                )
            )  # fmt: skip
        data = builder.build_onnx(*pieces)
        features = strategies.features_for(rng, len(sites), 4)
        expected = run_network(data, features, sites, 1)
        with instruction_set(isa):
            _assert_outputs(_core.Engine(data).run(features, sites, 1), expected.outputs)
