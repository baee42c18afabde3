# SPDX-License-Identifier: Apache-2.0
"""Unions of sites on a GPU: the bits of the oracle, and bounds."""

from __future__ import annotations

import numpy as np
import pytest

from scn_fx import _core
from scn_fx.errors import BoundError
from tests.oracle import builder
from tests.oracle.compare import assert_same_bits
from tests.oracle.geometry import align
from tests.oracle.network import run_network
from tests.oracle.union_networks import CASES, Branches, union_frames, union_network

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("graph", [True, False])
@pytest.mark.parametrize("precision", [None, "int8"])
@pytest.mark.parametrize("case", CASES)
def test_unions_have_the_bits_of_the_oracle(case: str, precision: str | None, graph: bool) -> None:
    data = union_network(CASES[case], precision)
    engine = _core.CudaEngine(data, graph=graph, max_batch=2)
    for frame in (*union_frames(), *union_frames()):
        engine.enqueue(*frame)
        expected = run_network(data, *frame).outputs
        for (values, sites), want in zip(engine.to_host(), expected, strict=True):
            assert_same_bits(values[align(want.sites, sites)], want.values, want.name)


def test_as_many_ways_to_make_sites_as_there_may_be() -> None:
    """Seven branches, three unions of eight sets, and one of one: 32."""
    made = Branches()
    made.of("same")
    names = [made.layer(f"b{i}", "features", (1, 1, 3), padding=(0, 0, 1)) for i in range(7)]
    unions = [builder.union(f"u{i}", ["same", *names], f"u{i}") for i in range(3)]
    last = builder.union("last", ["same"], "last")
    outputs = ["u0", "u1", "u2", "last"]
    data = builder.build_onnx(*made.pieces, *unions, last, outputs=outputs)
    engine = _core.CudaEngine(data, max_batch=2)
    for frame in union_frames():
        engine.enqueue(*frame)
        expected = run_network(data, *frame).outputs
        for (values, sites), want in zip(engine.to_host(), expected, strict=True):
            assert_same_bits(values[align(want.sites, sites)], want.values, want.name)


def test_more_sites_than_its_bound_are_reported_by_name() -> None:
    features, sites, batch = next(union_frames())
    engine = _core.CudaEngine(union_network(CASES["disjoint"], output_bound=len(sites) - 1), max_batch=2)
    engine.enqueue(features, sites, batch)
    with pytest.raises(BoundError, match=rf"^union: {len(sites)} output sites, but output_bound is"):
        engine.to_host()
    engine.enqueue(features[1:], sites[1:], batch)
    values, made = engine.to_host()[0]
    assert len(values) == len(made) == len(sites) - 1
    assert np.array_equal(made, sorted(made.tolist()))
