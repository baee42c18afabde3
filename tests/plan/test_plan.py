# SPDX-License-Identifier: Apache-2.0
"""Plans: what becomes a step, which forms of values are stored, what a backend refuses. Needs no GPU."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from scn_fx import _core
from scn_fx.errors import ArgumentError
from tests.oracle.builder import Piece, add, build_onnx, convolution, node

GRID = (4, 6, 8)
BACKENDS = ("cpu", "cuda")
Steps = list[dict[str, Any]]


def _same(name: str, source: str, result: str, channels: int, out: int, **options: Any) -> Piece:
    """A submanifold convolution on the input's sites."""
    weight = np.zeros((out, 1, 1, 1, channels), np.float16)
    geometry = {"input_shape": GRID, "output_shape": GRID, "subm": True, "rulebook": "same"}
    return convolution(name, source, result, weight, **geometry, **options)


def _int8(amax: float, out: int) -> dict[str, Any]:
    ranges = {"input_range": amax, "weight_ranges": [1.0] * out}
    return {"precision": "int8", "output_precision": "int8", **ranges}


def _dense(source: str, channels: int, result: str = "map") -> Piece:
    shapes = {"input_spatial_shape": list(GRID), "output_shape": [1, channels, *GRID]}
    return node("ScatterDense", "dense", [source], result, format="zyx", **shapes)


def _steps(
    *pieces: Piece, backend: str, outputs: list[str] | None = None, **options: Any
) -> list[dict[str, Any]]:
    steps: list[dict[str, Any]] = _core.plan_onnx(build_onnx(*pieces, outputs=outputs), backend, **options)[
        "steps"
    ]
    return steps


def _summary(steps: Steps) -> list[tuple[str, str]]:
    return [(step["kind"], step["name"]) for step in steps]


RESIDUAL = (
    _same("first", "features", "a", 5, 16, activation="ReLU"),
    _same("second", "a", "b", 16, 16, **_int8(2.0, 16)),
    add("add", "b", "a", "c", precision="int8", output_precision="fp16", ranges=(3.0, 2.0)),
    node("Relu", "relu", ["c"], "d"),
    _dense("d", 16),
)


def test_an_add_and_its_relu_become_part_of_the_convolution() -> None:
    steps = _steps(*RESIDUAL, backend="cpu")
    assert _summary(steps) == [
        ("load", "input"), ("convolution", "first"), ("convolution", "second"), ("scatter_dense", "dense"),
    ]  # fmt: skip
    assert steps[2]["fused_add"] == "add"
    assert [form["activation"] for form in steps[2]["stores"]] == ["ReLU"]
    # one form for the convolution and the Add: both quantise with the same range
    assert [(form["format"], form["dynamic_range"]) for form in steps[1]["stores"]] == [("int8", 2.0)]


def test_a_gpu_writes_the_dense_map_from_the_convolution() -> None:
    steps = _steps(*RESIDUAL, backend="cuda")
    assert _summary(steps) == [("load", "input"), ("convolution", "first"), ("convolution", "second")]
    (form,) = steps[2]["stores"]
    assert form["dense"] and (form["format"], form["activation"], form["channels"]) == ("fp16", "ReLU", 16)


@pytest.mark.parametrize("backend", BACKENDS)
def test_rows_that_someone_else_reads_are_stored(backend: str) -> None:
    steps = _steps(*RESIDUAL, backend=backend, outputs=["map", "d"])
    assert _summary(steps)[-1] == ("scatter_dense", "dense")
    assert "slot" in steps[2]["stores"][0]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_trace_fuses_nothing(backend: str) -> None:
    kinds = _summary(_steps(*RESIDUAL, backend=backend, trace=True))
    assert ("add", "add") in kinds and ("scatter_dense", "dense") in kinds


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_add_whose_other_operand_comes_later_is_a_step(backend: str) -> None:
    pieces = (
        _same("first", "features", "a", 5, 16),
        _same("second", "a", "b", 16, 16, **_int8(2.0, 16)),
        add("add", "a", "b", "c", precision="int8", output_precision="fp16", ranges=(3.0, 2.0)),
        _same("third", "b", "e", 16, 16, **_int8(2.0, 16)),
        add("last", "c", "e", "d", precision="int8", output_precision="fp16", ranges=(3.0, 2.0)),
    )
    kinds = _summary(_steps(*pieces, backend=backend))
    assert kinds[3] == ("add", "add")  # both operands have other readers
    assert kinds[4] == ("convolution", "third") and len(kinds) == 5


SUMS = (
    _same("first", "features", "a", 5, 16),
    *(_same(f"conv{i}", "a", f"b{i}", 16, 16, **_int8(2.0, 16)) for i in range(4)),
    *(
        add(f"sum{i}", left, right, f"s{i}", precision="int8", output_precision="int8", ranges=(3.0, 2.0))
        for i, (left, right) in enumerate([("b0", "b1"), ("b2", "b3"), ("s0", "s1")])
    ),
    _same("last", "s2", "c", 16, 4, **_int8(4.0, 4)),
)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_convolution_takes_one_add(backend: str) -> None:
    """The sum of two sums is a step of its own: each convolution has room for one."""
    steps = _steps(*SUMS, backend=backend)
    assert [step.get("fused_add") for step in steps if "fused_add" in step] == ["sum0", "sum1"]
    assert ("add", "sum2") in _summary(steps)


@pytest.mark.parametrize("backend", BACKENDS)
def test_forms_are_shared_by_readers_of_one_range(backend: str) -> None:
    ranges = (2.0, 2.0, 3.0)
    readers = [_same(f"r{i}", "a", f"y{i}", 16, 16, **_int8(amax, 16)) for i, amax in enumerate(ranges)]
    steps = _steps(
        _same("first", "features", "a", 5, 16), *readers, backend=backend, outputs=["y0", "y1", "y2"]
    )
    assert [form.get("dynamic_range") for form in steps[1]["stores"]] == [2.0, 3.0]


def _consumers(count: int, of: str, channels: int) -> list[Piece]:
    return [_same(f"r{i}", of, f"y{i}", channels, 16, **_int8(1.0 + i, 16)) for i in range(count)]


def test_a_result_in_more_forms_than_a_gpu_stores_is_refused_by_name() -> None:
    outputs = [f"y{i}" for i in range(7)]
    pieces = [_same("first", "features", "a", 5, 16), *_consumers(7, "a", 16)]
    assert len(_steps(*pieces, backend="cpu", outputs=outputs)[1]["stores"]) == 7
    with pytest.raises(ArgumentError, match=r"^first: its result is read in 7 different forms .*up to 6"):
        _steps(*pieces, backend="cuda", outputs=outputs)
    assert len(_steps(*pieces[:-1], backend="cuda", outputs=outputs[:-1])[1]["stores"]) == 6


def test_features_in_more_forms_than_a_gpu_stores_are_refused() -> None:
    """They have no node: planning read beyond the list of nodes."""
    outputs, pieces = [f"y{i}" for i in range(7)], _consumers(7, "features", 5)
    assert len(_steps(*pieces, backend="cpu", outputs=outputs)[0]["stores"]) == 7
    with pytest.raises(ArgumentError, match=r"^The features: they are read in 7 different forms"):
        _steps(*pieces, backend="cuda", outputs=outputs)


def test_axes_beyond_those_that_a_gpu_transposes_are_refused_by_name() -> None:
    shape = [1, 1, 1, 1, 1, 16, *GRID]
    pieces = (
        _same("first", "features", "a", 5, 16),
        _dense("a", 16),
        node("Reshape", "long", ["map"], "wide", dims=shape),
        node("Transpose", "turn", ["wide"], "turned", dims=[0, 1, 2, 3, 4, 6, 5, 7, 8]),
    )
    assert _summary(_steps(*pieces, backend="cpu"))[-1] == ("transpose", "turn")
    with pytest.raises(ArgumentError, match=r"^turn: the CUDA backend transposes up to 8 axes, this has 9"):
        _steps(*pieces, backend="cuda")


@pytest.mark.parametrize("backend", BACKENDS)
def test_global_pooling_reads_stored_rows_of_float16(backend: str) -> None:
    pool = node("SparseGlobalPool", "pool", ["a"], "row", kind="mean", output_shape=[1, 24])
    turned = node("Transpose", "turn", ["row"], "turned", dims=[1, 0])
    steps = _steps(_same("first", "features", "a", 5, 24), pool, turned, backend=backend)
    assert _summary(steps)[1:] == [("convolution", "first"), ("global_pool", "pool"), ("transpose", "turn")]
    (form,) = steps[1]["stores"]
    assert (form["format"], form["channels"]) == ("fp16", 24)
    assert not steps[2]["stores"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_rows_that_are_pooled_as_well_are_stored_beside_their_dense_map(backend: str) -> None:
    pool = node("SparseGlobalPool", "pool", ["a"], "row", kind="max", output_shape=[1, 24])
    pieces = [_same("first", "features", "a", 5, 24), _dense("a", 24), pool]
    steps = _steps(*pieces, backend=backend, outputs=["map", "row"])
    assert _summary(steps)[2:] == [("scatter_dense", "dense"), ("global_pool", "pool")]


def test_slots_are_shared_by_values_of_different_times() -> None:
    chain = [_same("c0", "features", "v0", 5, 16)]
    chain += [_same(f"c{i}", f"v{i - 1}", f"v{i}", 16, 16, **_int8(2.0, 16)) for i in range(1, 9)]
    plan = _core.plan_onnx(build_onnx(*chain), "cpu")
    assert plan["slots"] == 2
    slots = [form["slot"] for step in plan["steps"] for form in step["stores"]]
    assert all(one != two for one, two in pairwise(slots))


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(ArgumentError, match="backend must be 'cpu' or 'cuda', got 'tpu'"):
        _core.plan_onnx(build_onnx(*RESIDUAL), "tpu")
