# SPDX-License-Identifier: Apache-2.0
"""Plans of unions of sites: which step they are, what follows in it, and what a GPU refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from scn_fx import _core
from scn_fx.errors import ArgumentError
from tests.oracle.builder import Piece, add, build_onnx, convolution, node, union
from tests.plan.test_plan import BACKENDS, GRID, _dense, _int8, _same, _steps, _summary

FIRST = _same("first", "features", "a", 5, 16)


def _apart(name: str, source: str) -> Piece:
    """A convolution that makes a set of sites of its own on the same grid."""
    weight = np.zeros((16, 1, 1, 1, 16), np.float16)
    return convolution(name, source, name, weight, input_shape=GRID, output_shape=GRID)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_affine_map_an_activation_and_an_int8_form_follow_in_its_step(backend: str) -> None:
    numbers: dict[str, Any] = {"scale": [2.0] * 16, "shift": [1.0] * 16}
    pieces = (
        FIRST,
        _apart("b", "a"),
        union("u", ["a", "b"], "u"),
        node("Affine", "bn", ["u"], "scaled", **numbers),
        node("Relu", "relu", ["scaled"], "active"),
        convolution(
            "last", "active", "y", np.zeros((16, 1, 1, 1, 16)), input_shape=GRID, output_shape=GRID,
            subm=True, **_int8(3.0, 16),
        ),
    )  # fmt: skip
    steps = _steps(*pieces, backend=backend)
    assert [kind for kind, _ in _summary(steps)] == ["load", *["convolution"] * 2, "union", "convolution"]
    (form,) = steps[3]["stores"]
    expected = {"format": "int8", "dynamic_range": 3.0, "affine": "bn", "activation": "ReLU"}
    assert expected.items() <= form.items()
    kinds = _summary(_steps(*pieces, backend=backend, trace=True))
    assert ("union", "u") in kinds and ("affine", "bn") not in kinds


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_add_behind_it_is_a_step(backend: str) -> None:
    unions = [union(name, ["a", "b"], name, rulebook="both") for name in ("u", "v")]
    pieces = (FIRST, _apart("b", "a"), *unions, add("sum", "v", "u", "s"))
    assert [kind for kind, _ in _summary(_steps(*pieces, backend=backend))[3:]] == ["union", "union", "add"]


def test_rows_that_it_reads_are_stored_beside_a_dense_map() -> None:
    """A GPU writes the map from the convolution only where nobody else wants the rows."""
    pieces = (FIRST, _dense("a", 16), union("u", ["a"], "u"))
    steps = _steps(*pieces, backend="cuda", outputs=["map", "u"])
    assert _summary(steps)[1:] == [("convolution", "first"), ("scatter_dense", "dense"), ("union", "u")]
    alone = _steps(*pieces[:2], backend="cuda", outputs=["map"])
    assert _summary(alone)[1:] == [("convolution", "first")]


def test_its_parts_keep_their_slots_until_it_has_read_them() -> None:
    chain = [FIRST, *(_apart(f"b{i}", "a" if i == 0 else f"b{i - 1}") for i in range(5))]
    plan = _core.plan_onnx(build_onnx(*chain, union("u", ["a", *(f"b{i}" for i in range(5))], "u")), "cpu")
    slots = [form["slot"] for step in plan["steps"][1:7] for form in step["stores"]]
    assert len(set(slots)) == len(slots) == 6
    assert plan["steps"][7]["stores"][0]["slot"] not in slots


def test_more_ways_to_make_sites_than_a_gpu_has_are_refused_by_name() -> None:
    pieces = [FIRST, *(_apart(f"b{i}", "a") for i in range(7))]
    pieces += [union(f"u{i}", [f"b{k}" for k in range(7)] + ["a"], f"u{i}") for i in range(3)]
    outputs = ["u0", "u1", "u2"]
    pieces.append(union("u3", ["a"], "u3"))
    assert ("union", "u2") in _summary(_steps(*pieces, backend="cuda", outputs=outputs))  # 7 + 3 * 8 + 1
    pieces.append(union("u4", ["b0"], "u4"))
    assert ("union", "u4") in _summary(_steps(*pieces, backend="cpu", outputs=outputs))
    with pytest.raises(
        ArgumentError, match=r"^u4: with it, the CUDA backend would make sites in more than 32"
    ):
        _steps(*pieces, backend="cuda", outputs=outputs)


def test_more_sets_of_sites_than_a_gpu_has_are_refused_by_name() -> None:
    pieces = [FIRST, *(union(f"u{i}", ["a" if i == 0 else f"u{i - 1}"], f"u{i}") for i in range(24))]
    assert _steps(*pieces[:-1], backend="cuda")
    with pytest.raises(ArgumentError, match=r"^u23: with it, the CUDA backend would need more than 24 sets"):
        _steps(*pieces, backend="cuda")
