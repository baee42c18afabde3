# SPDX-License-Identifier: Apache-2.0
"""Global pooling of the engine on the CPU: the bits of the oracle, and what it refuses."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from scn_fx import Engine
from scn_fx.errors import OnnxError, OverflowedError
from tests.oracle.builder import Piece, build_onnx, convolution, node
from tests.oracle.compare import assert_same_bits
from tests.oracle.global_pools import CASES, GRID, KINDS, pool_frame, pool_network
from tests.oracle.network import run_network


@pytest.mark.parametrize("channels", [3, 40])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("precision", [None, "fp32"])
def test_it_has_the_bits_of_the_oracle(case: str, kind: str, channels: int, precision: str | None) -> None:
    counts, wide = CASES[case], precision is not None
    frame = pool_frame(counts, wide=wide)
    for strided in (False, True):
        data = pool_network(kind, channels, len(counts), wide=wide, strided=strided)
        expected = run_network(data, *frame, len(counts), precision=precision).outputs[0].values
        assert expected.shape == (len(counts), channels)
        assert expected.dtype == (np.float32 if precision else np.float16)
        for threads in (1, 2):
            engine = Engine(data, precision=precision, threads=threads)
            assert_same_bits(engine(*frame), expected, f"{strided}, {threads} threads")
            assert_same_bits(engine.trace(*frame)[-1].values, expected, "trace")


def test_the_order_of_additions_shows() -> None:
    """The frames here tell the tree of chunks from a plain sum."""
    data, frame = pool_network("sum", 8, 1, wide=True), pool_frame((900,), wide=True)
    rows, sites = run_network(data, *frame, 1, precision="fp32").nodes["first"].values, frame[1]
    in_order = rows[np.lexsort(sites.T[::-1])].astype(np.float64)
    plain = np.zeros(8)
    for row in in_order:
        plain = plain + row
    assert np.count_nonzero(Engine(data, precision="fp32")(*frame)[0] != plain.astype(np.float32)) > 4


@pytest.mark.parametrize("kind", KINDS)
def test_values_that_int8_layers_hand_on_unrounded(kind: str) -> None:
    frame = pool_frame((300, 20))
    data = pool_network(kind, 20, 2, int8=True)
    expected = run_network(data, *frame, 2).outputs[0].values
    assert expected.dtype == np.float32
    assert_same_bits(Engine(data)(*frame), expected)


def test_another_batch_size_and_frames_one_after_another() -> None:
    engine = Engine(pool_network("mean", 5, 2))
    for counts in ((300, 0, 513), (4,), (0, 0), (700, 90)):
        frame, batch = pool_frame(counts, seed=len(counts)), len(counts)
        expected = run_network(pool_network("mean", 5, batch), *frame, batch).outputs[0].values
        assert_same_bits(engine(*frame, batch_size=batch), expected, str(counts))


def test_what_may_follow() -> None:
    """Other readers of the rows, and of the result."""
    frame = pool_frame((300, 20))
    first, pool = _pieces()
    turned = node("Transpose", "turn", ["row"], "turned", dims=[1, 0])
    flat = node("Reshape", "flat", ["turned"], "flat", dims=[10])
    relu = node("Relu", "relu", ["rows"], "active")
    other = node("SparseGlobalPool", "other", ["active"], "largest", kind="max", output_shape=[2, 5])
    dense = node("ScatterDense", "dense", ["rows"], "dense", format="zyx", input_spatial_shape=list(GRID),
                 output_shape=[2, 5, *GRID])  # fmt: skip
    outputs = ["row", "flat", "active", "largest", "dense", "turned"]
    data = build_onnx(first, pool, turned, flat, relu, other, dense, outputs=outputs)
    expected = run_network(data, *frame, 2).outputs
    for got, wanted in zip(Engine(data)(*frame), expected, strict=True):
        assert_same_bits(got[0] if isinstance(got, tuple) else got, wanted.values, wanted.name)


def test_profiles_and_descriptions_know_it() -> None:
    engine = Engine(pool_network("sum", 4, 1))
    assert [stage.kind for stage in engine.profile(*pool_frame((50,)))].count("global_pool") == 1


def test_a_sum_beyond_float16_is_an_error() -> None:
    features, sites = np.full((600, 2), 200, np.float16), pool_frame((600,))[1]
    with pytest.raises(OverflowedError, match=r"^pool: 4 .*float16"):
        Engine(pool_network("sum", 4, 1))(features, sites)
    assert np.isfinite(Engine(pool_network("mean", 4, 1))(features, sites)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_nan_passes(kind: str) -> None:
    """Of one row among many, whose infinity meets a weight of zero."""
    same: dict[str, Any] = {"input_shape": GRID, "output_shape": GRID, "subm": True}
    names = ["features", *(f"v{i}" for i in range(10))]
    grow = np.eye(2, dtype=np.float16).reshape(2, 1, 1, 1, 2)
    factors = {y: np.float16(1 if y == names[-1] else 2**15) for y in names}
    pieces = [convolution(y, x, y, grow * factors[y], **same) for x, y in pairwise(names)]
    pieces.append(node("SparseGlobalPool", "pool", [names[-1]], "row", kind=kind, output_shape=[2, 2]))
    _, sites = pool_frame((300, 40))
    features = np.full((340, 2), 2.0**-24, np.float16)
    features[np.flatnonzero(sites[:, 0] == 0)[7]] = 1
    data = build_onnx(*pieces)
    with np.errstate(all="ignore"):
        expected = run_network(data, features, sites, 2, precision="fp32")
    assert np.isnan(expected.nodes[names[-1]].values).sum() == 2
    row = expected.outputs[0].values
    assert np.isnan(row[0]).all() and np.isfinite(row[1]).all()
    np.testing.assert_array_equal(Engine(data, precision="fp32")(features, sites), row)


def _pieces(kind: str = "mean", shape: tuple[int, ...] = (2, 5), source: str = "rows") -> list[Piece]:
    weight = np.arange(-5, 5, dtype=np.float16).reshape(5, 1, 1, 1, 2) / 8
    same: dict[str, Any] = {"input_shape": GRID, "output_shape": GRID, "subm": True}
    pool = node("SparseGlobalPool", "pool", [source], "row", kind=kind, output_shape=list(shape))
    return [convolution("first", "features", "rows", weight, **same), pool]


_SCATTER = {"format": "zyx", "input_spatial_shape": list(GRID)}
REFUSED: dict[str, tuple[list[Piece], str]] = {
    "kind": (_pieces("median"), r"'pool': kind must be 'max', 'mean' or 'sum', the file says 'median'"),
    "channels": (_pieces(shape=(2, 4)), r"'pool': output_shape must be \[batch, 5\].*'rows'.*\[2, 4\]"),
    "axes": (_pieces(shape=(2, 5, 1)), r"output_shape must be \[batch, 5\].*\[2, 5, 1\]"),
    "batch": (_pieces(shape=(0, 5)), r"output_shape must be .*\[0, 5\]"),
    "large batch": (_pieces(shape=(2**31, 5)), r"output_shape must be .*\[2147483648, 5\]"),
    "another batch": (
        [*_pieces(), node("ScatterDense", "d", ["rows"], "d", output_shape=[3, 5, *GRID], **_SCATTER)],
        r"'d': dense maps of one network need the same batch, found 2 and 3",
    ),
    "features": (_pieces(source="features")[1:], "before any convolution"),
    "twice": (
        [*_pieces(), node("SparseGlobalPool", "p", ["row"], "p", kind="max", output_shape=[2, 5])],
        r"'p': 'row' is a dense map, but the operator needs sparse features",
    ),
    "rows of it": ([*_pieces(), node("Relu", "r", ["row"], "r")], r"'r': 'row' is a dense map"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_files_may_not_say(case: str) -> None:
    pieces, message = REFUSED[case]
    with pytest.raises(OnnxError, match=message):
        Engine(build_onnx(*pieces, channels=2))
