# SPDX-License-Identifier: Apache-2.0
"""Unions of sites: the engine against the oracle, and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from scn_fx import _core
from scn_fx.errors import BoundError, MemoryLimitError, OnnxError, OverflowedError
from tests.core.instruction_sets import SUPPORTED, instruction_set
from tests.oracle import builder
from tests.oracle.builder import Piece
from tests.oracle.compare import assert_same_bits
from tests.oracle.geometry import align
from tests.oracle.network import run_network
from tests.oracle.union_networks import CASES, CHANNELS, GRID, Branches, union_frames, union_network

SITES = np.array([[0, 0, 0, 0], [0, 1, 2, 3], [0, 2, 3, 4]], np.int32)
FEATURES = np.ones((3, CHANNELS), np.float16)


def _assert_like_the_oracle(data: bytes, frame: tuple[Any, ...], **options: Any) -> None:
    expected = run_network(data, *frame).outputs
    outputs = _core.Engine(data, **options).run(*frame)
    for (values, sites), want in zip(outputs, expected, strict=True):
        assert_same_bits(values[align(want.sites, sites)], want.values, want.name)


@pytest.mark.parametrize("isa", SUPPORTED)
@pytest.mark.parametrize("precision", [None, "int8"])
@pytest.mark.parametrize("case", CASES)
def test_unions_have_the_bits_of_the_oracle(case: str, precision: str | None, isa: str) -> None:
    data = union_network(CASES[case], precision, shape=GRID)
    with instruction_set(isa):
        for frame in union_frames():
            for threads in (1, 2):
                _assert_like_the_oracle(data, frame, threads=threads)


@pytest.mark.parametrize("case", CASES)
def test_its_sites_ascend_and_are_those_of_any_part(case: str) -> None:
    features, sites, batch = next(union_frames())
    _, made = _core.Engine(union_network(CASES[case])).run(features, sites, batch)[0]
    assert made.tolist() == sorted(made.tolist())
    odd = sites[:, 3] % 2 == 1
    if case == "disjoint":
        assert 0 < odd.sum() < len(sites), "the frame shows nothing"
    if "wider" not in CASES[case]:
        kept = sites if set(CASES[case]) != {"even"} else sites[~odd]
        assert sorted(made.tolist()) == sorted(kept.tolist())


def test_the_result_is_float16_where_all_parts_are() -> None:
    frame = next(union_frames())
    kinds = {("fp16", "fp16"): np.float16, ("fp16", "int8"): np.float32, ("int8", "fp16"): np.float32}
    for precisions, dtype in kinds.items():
        made = Branches()
        for branch, precision in zip(("same", "wider"), precisions, strict=True):
            made.precision = precision
            made.of(branch)
        data = builder.build_onnx(*made.pieces, builder.union("u", ["same", "wider"], "u"))
        ((values, _),) = _core.Engine(data).run(*frame)
        assert values.dtype == dtype
        _assert_like_the_oracle(data, frame)
        ((values, _),) = _core.Engine(data, precision="fp32").run(*frame)
        assert values.dtype == np.float32


def test_a_sum_begins_at_plus_zero() -> None:
    made = Branches()
    made.of("same")
    zeros = [0.0] * CHANNELS
    minus = builder.node("Affine", "minus", ["same"], "minus", scale=zeros, shift=[-0.0] * CHANNELS)
    turned = builder.node(
        "Affine", "turned", ["minus"], "turned", scale=[-1.0] * CHANNELS, shift=[-0.0] * CHANNELS
    )
    data = builder.build_onnx(
        *made.pieces, minus, turned, builder.union("u", ["turned"], "u"), outputs=["turned", "u"]
    )
    features = np.abs(FEATURES)
    (negative, _), (values, _) = _core.Engine(data).run(features, SITES)
    assert np.signbit(negative).any() and not values.any() and not np.signbit(values).any()
    _assert_like_the_oracle(data, (features, SITES, 1))


def test_a_trace_has_the_union_and_its_activation() -> None:
    data, frame = union_network(CASES["overlapping"], "int8"), next(union_frames())
    expected = run_network(data, *frame).nodes
    nodes = {node["name"]: node for node in _core.Engine(data, trace=True).trace(*frame)}
    assert nodes["union"]["op_type"] == "SparseUnion" and nodes.keys() == expected.keys()
    for name, want in expected.items():
        assert want.sites is not None
        rows = align(want.sites, nodes[name]["indices"])
        assert_same_bits(nodes[name]["values"][rows], want.values, name)


def test_a_profile_names_the_union() -> None:
    features, sites, batch = next(union_frames())
    stages = _core.Engine(union_network(CASES["disjoint"])).profile(features, sites, batch)
    found = [(stage["kind"], stage["name"]) for stage in stages]
    assert ("union", "union") in found
    assert found.count(("output_sites", "union")) == 1 and found.count(("conv_map", "union")) == 2


def test_unions_that_share_a_rulebook_share_sites_and_maps() -> None:
    made = Branches()
    names = [made.of(which) for which in ("same", "even", "other")]
    pieces = [
        *made.pieces,
        builder.union("one", names[:2], "one", rulebook="both"),
        builder.union("two", [names[2], names[1]], "two", rulebook="both"),
        builder.add("sum", "one", "two", "sum"),
    ]
    data = builder.build_onnx(*pieces)
    maps = _core.plan_onnx(data, "cpu")["kernel_maps"]
    assert [m["layer"] for m in maps if m["rulebook"] == "both"] == ["one", "one"]
    for frame in union_frames():
        _assert_like_the_oracle(data, frame)
    pieces[-2] = builder.union("two", [names[2], names[1]], "two", rulebook="")
    with pytest.raises(OnnxError, match=r"'sum': its inputs must lie on the same sites"):
        _core.Engine(builder.build_onnx(*pieces))


def test_parts_on_the_same_sites_share_a_map() -> None:
    maps = _core.plan_onnx(union_network(CASES["eight parts"]), "cpu")["kernel_maps"]
    assert len([m for m in maps if m["layer"] == "union"]) == 5  # of 8 parts


def test_grids_without_a_bitmap() -> None:
    """Cells are sorted there, those of all parts together."""
    grid = (1100, 1000, 1000)
    made = Branches()
    same: dict[str, Any] = {"input_shape": grid, "output_shape": grid}
    made.layer("same", "features", subm=True, **same)
    made.layer("wider", "features", (1, 3, 3), padding=(0, 1, 1), **same)
    made.pieces.append(builder.union("u", ["same", "wider", "same"], "u", shape=grid))
    data = builder.build_onnx(*made.pieces)
    _assert_like_the_oracle(data, (FEATURES, SITES * 200, 1))
    rng = np.random.default_rng(0)
    sites = np.unique(np.c_[np.zeros(4000, int), rng.integers(0, 1000, (4000, 3))], axis=0).astype(np.int32)
    features, said = np.ones((len(sites), CHANNELS), np.float16), set()
    for limit in range(10**6, 6 * 10**6, 10**5):
        with pytest.raises(MemoryLimitError) as error:
            _core.Engine(data, memory_limit=limit, threads=1).run(features, sites)
        said.add(str(error.value).partition(" would take")[0])
    assert said >= {f"u: {what}" for what in ("the cells that it reaches", "its sites", "its kernel map")}


def test_more_sites_than_its_bound_are_reported_by_name() -> None:
    features, sites, batch = next(union_frames())
    engine = _core.Engine(union_network(CASES["disjoint"], output_bound=len(sites)))
    assert len(engine.run(features, sites, batch)[0][0]) == len(sites)
    engine = _core.Engine(union_network(CASES["disjoint"], output_bound=len(sites) - 1))
    with pytest.raises(BoundError, match=rf"^union: {len(sites)} output sites, but output_bound is"):
        engine.run(features, sites, batch)
    assert len(engine.run(features[1:], sites[1:], batch)[0][0]) == len(sites) - 1


def test_values_beyond_float16_are_reported_by_name() -> None:
    weight = np.eye(CHANNELS, dtype=np.float16).reshape(CHANNELS, 1, 1, 1, CHANNELS) * 40000
    same: dict[str, Any] = {"input_shape": GRID, "output_shape": GRID, "subm": True}
    pieces = [builder.convolution("c", "features", "c", weight, **same), builder.union("u", ["c", "c"], "u")]
    data = builder.build_onnx(*pieces)
    with pytest.raises(OverflowedError, match=rf"^u: {3 * CHANNELS} values .* do not fit in float16"):
        _core.Engine(data).run(FEATURES, SITES)
    ((values, _),) = _core.Engine(data, precision="fp32").run(FEATURES, SITES)
    assert (values == 80000).all()


def _named(rulebook: str, names: list[str], name: str = "u", **options: Any) -> Piece:
    return builder.union(name, names, name, rulebook=rulebook, **options)


def _conv(rulebook: str, x: str = "same", **geometry: Any) -> Piece:
    made = Branches()
    made.layer("c", x, rulebook=rulebook, **geometry)
    return made.pieces[0]


NARROW = builder.convolution(
    "n", "same", "n", np.zeros((3, 1, 1, 1, CHANNELS)), input_shape=GRID, output_shape=GRID, subm=True
)
DENSE = builder.node(
    "ScatterDense", "d", ["same"], "d",
    format="zyx", input_spatial_shape=list(GRID), output_shape=[1, CHANNELS, *GRID],
)  # fmt: skip
REFUSED: dict[str, tuple[list[Piece], str]] = {
    "nothing": ([_named("", [])], "SparseUnion 'u': expected at least 1 inputs"),
    "nine parts": ([_named("", ["same"] * 9)], "'u': it has 9 inputs; this engine takes 8 at most"),
    "channels": (
        [NARROW, _named("", ["same", "n"])],
        r"'u': its inputs must .*'same' has 5 channels on \[3, 4, 8\], 'n' has 3 channels on \[3, 4, 8\]",
    ),
    "grid": (
        [_named("", ["even", "even.down"])],
        r"'u': its inputs must have the same channels and lie on the same grid; .* on \[3, 4, 4\]",
    ),
    "said grid": (
        [_named("", ["same"], shape=(3, 4, 9))],
        r"'u': spatial_shape is \[3, 4, 9\], but the grid of its inputs is \[3, 4, 8\]",
    ),
    "dense": ([DENSE, _named("", ["same", "d"])], "'u': 'd' is a dense map, but the operator needs sparse"),
    "bound": (
        [_named("", ["same"], output_bound=0)],
        "'u': output_bound must be at least 1, the file says 0",
    ),
    "order": (
        [_named("r", ["same", "even"]), _named("r", ["even", "same"], "v")],
        "SparseUnion 'v': rulebook 'r' was made by 'u' of inputs on other sites",
    ),
    "fewer": (
        [_named("r", ["same", "even"]), _named("r", ["same"], "v")],
        "SparseUnion 'v': rulebook 'r' was made by 'u' of inputs on other sites",
    ),
    "of a convolution": (
        [_conv("r"), _named("r", ["same", "even"])],
        "SparseUnion 'u': rulebook 'r' was made by 'c', which is no union of sites",
    ),
    "of a union": (
        [_named("r", ["same", "even"]), _conv("r", subm=True)],
        "SparseConvolution 'c': rulebook 'r' was made by 'u', a union of sites",
    ),
    "inverse of a union": (
        [_named("r", ["same"]), _conv("r", "u", inverse=True)],
        "SparseConvolution 'c': rulebook 'r' was made by 'u', a union of sites",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(case: str) -> None:
    pieces, message = REFUSED[case]
    made = Branches()
    made.of("same")
    made.of("even")
    with pytest.raises(OnnxError, match=message):
        _core.Engine(builder.build_onnx(*made.pieces, *pieces))


def test_features_come_behind_a_convolution() -> None:
    with pytest.raises(OnnxError, match=r"'u': it reads the features 'features' before any convolution"):
        _core.Engine(builder.build_onnx(_named("", ["features"]), _conv("", "u")))
