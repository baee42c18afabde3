# SPDX-License-Identifier: Apache-2.0
"""Whole networks in the oracle: against float64 by hand, and the rules that only networks show."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
from hypothesis import given

from tests.oracle import builder
from tests.oracle.dialect import ACTIVATION_NODES
from tests.oracle.frames import Frame, random_sites
from tests.oracle.network import run_network
from tests.oracle.random_networks import RandomNetwork, networks, wide_network

SHAPE = (3, 8, 8)
ONE = np.ones((1, 1, 1, 1, 1), np.float16)


def _pointwise(name: str, x: str, y: str, weight: float, **options: object) -> builder.Piece:
    return builder.convolution(
        name, x, y, ONE * np.float16(weight), input_shape=SHAPE, output_shape=SHAPE, subm=True, **options
    )


def _run(*pieces: builder.Piece, value: float, **options: object) -> dict[str, float]:
    sites = np.array([[0, 1, 2, 3]], np.int32)
    result = run_network(builder.build_onnx(*pieces), np.float16([[value]]), sites, **options)
    return {name: float(node.values.ravel()[0]) for name, node in result.nodes.items()}


def test_int8_consumers_see_the_unrounded_value() -> None:
    """1.001 * 3 is not a float16: a consumer with a fine enough range tells the two apart."""
    first = {"precision": "fp16", "input_range": 4.0, "weight_ranges": [1.0]}
    seen = {}
    for output in ("int8", "fp16"):
        pieces = (
            _pointwise("a", "features", "y", 1.0009765625, output_precision=output, **first),
            _pointwise("b", "y", "z", 1.0),
        )
        seen[output] = _run(*pieces, value=3.001953125)
    product = 1.0009765625 * 3.001953125
    assert seen["int8"]["a"] == np.float32(product) != np.float16(product) == seen["fp16"]["a"]
    assert seen["int8"]["b"] == seen["fp16"]["b"], "an fp16 consumer rounds what it reads"


def test_float16_overflow_is_reported_with_its_node() -> None:
    pieces = _pointwise("a", "features", "y", 400.0), _pointwise("b", "y", "z", 1.0)
    sites = np.array([[0, 1, 2, 3]], np.int32)
    result = run_network(builder.build_onnx(*pieces), np.float16([[200.0]]), sites)
    assert result.overflowed == {"a": 1}, "b only passes the infinity on"
    assert np.isinf(result.nodes["a"].values).all()


def test_given_values_replace_what_consumers_read() -> None:
    pieces = _pointwise("a", "features", "y", 2.0), _pointwise("b", "y", "z", 3.0)
    values = _run(*pieces, value=1.0, given={"a": np.float16([[10.0]])})
    assert values == {"a": 2.0, "b": 30.0}


def test_rulebooks_must_agree() -> None:
    sites = random_sites(np.random.default_rng(0), 20, SHAPE)
    weights = np.ones((1, 1, 1, 3, 1), np.float16), np.ones((1, 1, 3, 1, 1), np.float16)
    pads = (0, 0, 1), (0, 1, 0)
    pieces = [
        builder.convolution(
            f"c{i}", f"t{i}", f"t{i + 1}", weights[i], input_shape=SHAPE, output_shape=SHAPE, subm=True,
            padding=pads[i], rulebook="shared",
        )
        for i in (0, 1)
    ]  # fmt: skip
    data = builder.build_onnx(*pieces, input_name="t0")
    with pytest.raises(AssertionError, match="of another geometry"):
        run_network(data, np.ones((20, 1), np.float16), sites)


def test_submanifold_networks_keep_the_order_of_sites(small_frame: Frame) -> None:
    data = builder.build_onnx(
        builder.convolution(
            "c", "features", "y", np.ones((2, 3, 3, 3, 5), np.float16),
            input_shape=small_frame.shape, output_shape=small_frame.shape, padding=(1, 1, 1), subm=True,
        )
    )  # fmt: skip
    (output,) = run_network(data, small_frame.features, small_frame.indices).outputs
    np.testing.assert_array_equal(output.sites, small_frame.indices)
    assert (np.diff(small_frame.indices[:, 1]) < 0).any(), "the frame is in ascending order: it shows nothing"


@given(networks(exact=False))
def test_random_networks_are_valid_and_finite(network: RandomNetwork) -> None:
    onnx.checker.check_model(onnx.load_model_from_string(network.onnx))
    result = run_network(network.onnx, network.features, network.sites, network.batch_size, bounds=True)
    assert not result.overflowed
    for node in result.nodes.values():
        assert np.isfinite(node.values).all() and (node.bound is None or np.isfinite(node.bound).all())


@given(networks(exact=True))
def test_exact_networks_have_no_bounds(network: RandomNetwork) -> None:
    result = run_network(network.onnx, network.features, network.sites, network.batch_size)
    assert all(node.bound is None for node in result.nodes.values())


@given(networks(exact=False))
def test_quantised_networks_stay_near_their_float64_selves(network: RandomNetwork) -> None:
    """fp16 everywhere against fp32 everywhere: gross errors of any operator would show."""
    arguments = network.onnx, network.features, network.sites, network.batch_size
    half, full = (run_network(*arguments, precision=p) for p in ("fp16", "fp32"))
    for a, b in zip(half.outputs, full.outputs, strict=True):
        np.testing.assert_allclose(a.values, b.values, atol=0.02 * (1 + np.abs(b.values).max(initial=0)))


def test_random_networks_have_sums_of_sums_and_sums_read_twice() -> None:
    both, twice = 0, 0
    for seed in range(120):
        made = onnx.load_model_from_string(wide_network(seed, "int8").onnx).graph.node
        sums = {node.output[0]: node for node in made if node.op_type == "Add"}
        both += sum(all(name in sums for name in node.input) for node in sums.values())
        read = Counter(name for node in made for name in node.input)
        twice += sum(read[name] > 1 for name in sums)
    assert both >= 5 and twice >= 10


def test_wide_networks_follow_from_their_seeds_and_have_every_operator() -> None:
    found, widths, counts = set(), set(), set()
    for seed in range(200):
        network = wide_network(seed, "int8")
        assert network.onnx == wide_network(seed, "int8").onnx
        model = onnx.load_model_from_string(network.onnx)
        for made in model.graph.node:
            found.add(made.op_type)
            kinds = [a.name for a in made.attribute if a.name in ("subm", "inverse", "transposed") and a.i]
            found.add(kinds[0] if kinds else made.op_type)
            widths |= {a.i for a in made.attribute if a.name == "out_channels"}
            precisions = {a.s for a in made.attribute if a.name == "precision"}
            assert precisions <= {b"int8"}
        counts.add(len(network.sites))
    assert found >= {
        "SparseConvolution", "subm", "inverse", "transposed", "Add", "Relu", "Concat", "Affine", "Mul",
        "SparsePool", "SparseUnion", "SparseGlobalPool", "GroupNormalization", "ScatterDense", "Transpose",
        "Reshape",
    }  # fmt: skip
    assert len(found & set(ACTIVATION_NODES)) > 3
    assert widths >= {1, 5, 8, 16, 32, 64, 128, 256} and counts >= {0, 1, 2, 63, 64, 65}
    assert wide_network(0, "int8").onnx != wide_network(1, "int8").onnx
    half = run_network(
        *(getattr(wide_network(7, "fp16"), n) for n in ("onnx", "features", "sites", "batch_size"))
    )
    assert not half.overflowed
