# SPDX-License-Identifier: Apache-2.0
"""Plans of concatenations, affine maps and products: what takes a step, and where parts are stored."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from scn_fx import _core
from scn_fx.errors import OnnxError
from tests.oracle.builder import Piece, add, build_onnx, node, pool
from tests.plan.test_plan import BACKENDS, GRID, _dense, _int8, _same, _steps, _summary

INT8 = {"precision": "int8", "output_precision": "int8"}


def _joined(*widths: int, between: tuple[Piece, ...] = (), read: str = "cat") -> list[Piece]:
    """Convolutions of these widths side by side, read by one in int8."""
    parts = [
        _same(f"part{i}", "a", f"p{i}", 16, width, **_int8(2.0, width)) for i, width in enumerate(widths)
    ]
    return [
        _same("first", "features", "a", 5, 16, activation="ReLU"),
        *parts,
        node("Concat", "cat", [f"p{i}" for i in range(len(widths))], "cat", axis=1),
        *between,
        _same("last", read, "y", sum(widths), 16, **_int8(3.0, 16)),
    ]


def _places(steps: list[dict[str, Any]], name: str) -> list[tuple[str, int, int]]:
    """Format, column and channels of what a step stores."""
    (step,) = [step for step in steps if step["name"] == name]
    return [(form["format"], form["column"], form["channels"]) for form in step["stores"]]


@pytest.mark.parametrize("backend", BACKENDS)
def test_parts_of_whole_groups_of_channels_are_stored_side_by_side(backend: str) -> None:
    steps = _steps(*_joined(32, 16, 5), backend=backend)
    assert [kind for kind, _ in _summary(steps)] == ["load", *["convolution"] * 5]
    assert [_places(steps, f"part{i}") for i in range(3)] == [
        [("int8", 0, 32)],
        [("int8", 32, 16)],
        [("int8", 48, 5)],
    ]
    assert len({step["stores"][0]["slot"] for step in steps[2:5]}) == 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_other_parts_are_copied(backend: str) -> None:
    steps = _steps(*_joined(5, 16), backend=backend)
    assert ("concat", "cat") in _summary(steps)
    assert _places(steps, "part0") == [("int8", 0, 5)]  # in a storage of its own
    assert _places(steps, "part1") == [("int8", 0, 16)]


def test_a_last_part_that_leaves_columns_behind_it_has_them_cleared_on_a_gpu() -> None:
    """48 + 48 bytes lie in a row of 128, of which the last part stores 64."""
    assert ("concat", "cat") in _summary(_steps(*_joined(48, 48), backend="cuda"))
    assert ("concat", "cat") not in _summary(_steps(*_joined(48, 48), backend="cpu"))


def _affine(x: str, y: str, channels: int) -> Piece:
    numbers = np.linspace(-1, 1, channels).astype(np.float32).tolist()
    return node("Affine", f"affine_{y}", [x], y, scale=numbers, shift=numbers)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_affine_map_and_a_relu_of_a_concatenation_are_no_steps(backend: str) -> None:
    between = (_affine("cat", "scaled", 64), node("Relu", "relu", ["scaled"], "active"))
    steps = _steps(*_joined(32, 32, between=between, read="active"), backend=backend)
    assert [kind for kind, _ in _summary(steps)] == ["load", *["convolution"] * 4]
    assert [step["stores"][0]["activation"] for step in steps[2:4]] == ["ReLU", "ReLU"]
    assert [step["stores"][0]["affine"] for step in steps[2:4]] == ["affine_scaled"] * 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_second_affine_map_takes_a_step(backend: str) -> None:
    between = (_affine("cat", "scaled", 48), _affine("scaled", "again", 48))
    steps = _steps(*_joined(32, 16, between=between, read="again"), backend=backend)
    assert ("affine", "affine_again") in _summary(steps)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_product_takes_a_step_and_no_add_is_lost_behind_it(backend: str) -> None:
    pieces = (
        _same("first", "features", "a", 5, 16),
        _same("second", "a", "b", 16, 16, **_int8(2.0, 16)),
        add("gate", "b", "a", "c", op_type="Mul", ranges=(1.0, 2.0), **INT8),
        _same("third", "c", "d", 16, 16, **_int8(2.0, 16)),
        add("sum", "d", "c", "e", ranges=(1.0, 2.0), **INT8),
        _dense("e", 16),
    )
    steps = _steps(*pieces, backend=backend)
    assert ("multiply", "gate") in _summary(steps)
    assert [step.get("fused_add") for step in steps if step["name"] == "third"] == ["sum"]
    assert [step.get("fused_add") for step in steps if step["name"] == "second"] == [None]


NUMBERS: Any = {"scale": [1.0] * 16, "shift": [0.0] * 16}
SHAPES: Any = {"input_shape": GRID, "output_shape": GRID}
REFUSED: dict[str, tuple[Piece, str]] = {
    "rows": (node("Concat", "cat", ["a", "a"], "y", axis=0), r"axis must be 1 \(channels\), the file says 0"),
    "nothing": (node("Concat", "cat", [], "y", axis=1), "expected at least 1 inputs"),
    "few numbers": (
        node("Affine", "bn", ["a"], "y", scale=[1.0] * 3, shift=[0.0] * 16),
        "scale needs one entry",
    ),
    "no shift": (node("Affine", "bn", ["a"], "y", scale=[1.0] * 16), "shift needs one entry per channel"),
    "infinite": (
        node("Affine", "bn", ["a"], "y", scale=[float("inf")] * 16, shift=[0.0] * 16),
        "scale must be finite",
    ),
    "ranges": (
        add("gate", "a", "a", "y", op_type="Mul", ranges=(2.0**-90, 2.0**-90), **INT8),
        "make a product of two int8 steps",
    ),
    "groups": (
        node(
            "GroupNormalization",
            "n",
            ["a"],
            "y",
            num_groups=3,
            epsilon=0.1,
            scale=[1.0] * 16,
            shift=[0.0] * 16,
        ),
        "num_groups must divide its 16 channels, the file says 3",
    ),
    "epsilon": (
        node("GroupNormalization", "n", ["a"], "y", num_groups=2, **NUMBERS),
        "epsilon must be a finite number >= 0",
    ),
    "least": (pool("p", "a", "y", "min", (1, 1, 1), **SHAPES), "kind must be 'max', 'mean' or 'sum'"),
    "grid": (
        pool("p", "a", "y", "max", (2, 2, 2), stride=(2, 2, 2), **SHAPES),
        "output_spatial_shape is .* but its geometry gives",
    ),
    "no range": (add("gate", "a", "a", "y", op_type="Mul", **INT8), "input0_dynamic_range must be"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str) -> None:
    piece, message = REFUSED[name]
    with pytest.raises(OnnxError, match=message):
        _core.plan_onnx(build_onnx(_same("first", "features", "a", 5, 16), piece), "cpu")
