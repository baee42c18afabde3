# SPDX-License-Identifier: Apache-2.0
"""Concatenation, product and affine map of features: values against numpy, gradients against torch's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import scn_fx.ops  # noqa: F401  (registers the operators)
from scn_fx.errors import ArgumentError, CalibrationError, OverflowedError, ScnError, SiteError
from tests.ops.samples import random_sites, random_tensor, strided_arguments
from tests.oracle import numerics
from tests.oracle.compare import assert_same_bits

OPS = torch.ops.scn_fx


def _gradients(made: torch.Tensor, inputs: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    direction = random_tensor(*made.shape, seed=9)
    return torch.autograd.grad((made * direction).sum(), inputs)


def _same(ours: torch.Tensor, torchs: torch.Tensor, inputs: list[torch.Tensor]) -> None:
    torch.testing.assert_close(ours, torchs, rtol=1e-6, atol=1e-6)
    for found, expected in zip(_gradients(ours, inputs), _gradients(torchs, inputs), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_concat_and_its_gradients() -> None:
    parts = [random_tensor(40, width, seed=width).requires_grad_() for width in (3, 1, 6)]
    _same(OPS.concat(parts, name="join"), torch.cat(parts, 1), parts)


def test_concat_where_one_part_needs_a_gradient() -> None:
    a, b = random_tensor(7, 2, seed=1), random_tensor(7, 3, seed=2).requires_grad_()
    (found,) = _gradients(OPS.concat([a, b, a], name="join"), [b])
    assert torch.equal(found, random_tensor(7, 7, seed=9)[:, 2:5])


def test_concat_is_float16_if_all_parts_are() -> None:
    a = random_tensor(5, 2)
    assert OPS.concat([a.half(), a.half()], name="join").dtype == torch.float16
    mixed = OPS.concat([a.half(), a], name="join")
    assert mixed.dtype == torch.float32
    assert torch.equal(mixed[:, :2], a.half().float())


def test_affine_and_its_gradients() -> None:
    x = random_tensor(40, 3).requires_grad_()
    scale, shift = [1.5, 0.0, -0.3], [0.1, 2.0, -4.0]
    _same(
        OPS.affine(x, name="bn", scale=scale, shift=shift), x * torch.tensor(scale) + torch.tensor(shift), [x]
    )


def test_affine_has_the_bits_of_the_oracle() -> None:
    x = random_tensor(500, 4)
    scale, shift = random_tensor(4, seed=1), random_tensor(4, seed=2)
    expected = numerics.affine(x.numpy(), scale.numpy(), shift.numpy())
    made = OPS.affine(x, name="bn", scale=scale.tolist(), shift=shift.tolist())
    assert_same_bits(made.numpy(), expected)
    half = OPS.affine(x.half(), name="bn", scale=scale.tolist(), shift=shift.tolist())
    rounded = numerics.affine(x.half().float().numpy(), scale.numpy(), shift.numpy()).astype(np.float16)
    assert half.dtype == torch.float16
    assert_same_bits(half.numpy(), rounded)


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_group_norm_and_its_gradients(groups: int) -> None:
    x = random_tensor(40, 6).requires_grad_()
    scale, shift = random_tensor(6, seed=1), random_tensor(6, seed=2)
    numbers = {"scale": scale.tolist(), "shift": shift.tolist()}
    made = OPS.group_norm(x, name="n", groups=groups, epsilon=1e-3, **numbers)
    wide = torch.nn.functional.group_norm(x.double(), groups, scale.double(), shift.double(), 1e-3)
    _same(made, wide.float(), [x])
    expected = numerics.group_norm(x.detach().numpy(), groups, 1e-3, scale.numpy(), shift.numpy())
    assert_same_bits(made.detach().numpy(), expected)


def test_product_and_its_gradients() -> None:
    a, b = (random_tensor(40, 6, seed=seed).requires_grad_() for seed in (1, 2))
    _same(OPS.multiply(a, b, name="gate"), a * b, [a, b])


def test_product_of_a_value_with_itself() -> None:
    a = random_tensor(40, 6).requires_grad_()
    _same(OPS.multiply(a, a, name="square"), a * a, [a])


def _pooled(x: torch.Tensor, kernel_map: torch.Tensor, kind: str) -> torch.Tensor:
    """By torch's own operators, row by row."""
    rows = []
    for entries in kernel_map:
        found = x[entries[entries >= 0].long()]
        if kind == "max":
            rows.append(found.amax(0))
        else:
            rows.append(found.sum(0) if kind == "sum" else found.mean(0))
    return torch.stack(rows)


@pytest.mark.parametrize("kind", ["max", "mean", "sum"])
def test_pooling_and_its_gradients(kind: str) -> None:
    _, kernel_map = OPS.conv_map(random_sites(), **strided_arguments())
    x = random_tensor(40, 5).requires_grad_()
    _same(OPS.pool(x, kernel_map, name="pool", kind=kind), _pooled(x, kernel_map, kind), [x])


def test_pooling_keeps_nan_and_empty_rows_are_zero() -> None:
    x = torch.tensor([[1.0], [float("nan")], [-3.0]])
    kernel_map = torch.tensor([[0, 1], [1, 0], [2, -1], [-1, -1]], dtype=torch.int32)
    for kind in ("max", "mean", "sum"):
        made = OPS.pool(x, kernel_map, name="pool", kind=kind)
        assert made[:2].isnan().all()
        assert made[2:].tolist() == [[-3.0], [0.0]]
    assert OPS.pool(x[:0], kernel_map[3:], name="pool", kind="max").tolist() == [[0.0]]


INT8 = {
    "precision": "int8",
    "output_precision": "int8",
    "input0_dynamic_range": 2.0,
    "input1_dynamic_range": 0.7,
}


def test_int8_product_has_the_bits_of_the_oracle() -> None:
    a, b = random_tensor(500, 6, seed=1), random_tensor(500, 6, seed=2)
    a[:9] *= 1e-3  # zeros of either sign
    expected = numerics.multiply_int8(a.numpy(), b.numpy(), 2.0, 0.7)
    assert_same_bits(OPS.multiply(a, b, name="gate", **INT8).numpy(), expected)


def test_int8_product_passes_gradients_within_the_ranges() -> None:
    a = torch.tensor([[0.5, 3.0]], requires_grad=True)
    b = torch.tensor([[0.3, 0.3]], requires_grad=True)
    of_a, of_b = torch.autograd.grad(OPS.multiply(a, b, name="gate", **INT8).sum(), (a, b))
    step = np.float32(0.7) / np.float32(127)
    assert of_a[0, 0] == pytest.approx(float(np.round(0.3 / step) * step), rel=1e-6)
    assert of_a[0, 1] == 0  # clipped
    assert of_b[0, 1] == pytest.approx(2.0, rel=1e-6)


def test_float16_product_that_overflows() -> None:
    large = torch.full((2, 2), 300.0)
    with pytest.raises(OverflowedError, match="'gate'"):
        OPS.multiply(large, large, name="gate", precision="fp16", output_precision="fp16")


A = random_tensor(4, 2)

Refusal = tuple[Callable[[], Any], type[ScnError], str]
REFUSED: dict[str, Refusal] = {
    "other sites": (
        lambda: OPS.concat([A, A[:3]], name="j"),
        SiteError,
        "'j': all inputs must lie on the same",
    ),
    "integers": (lambda: OPS.concat([A, A.int()], name="j"), SiteError, "'j': input 1 must be float16"),
    "too few scales": (
        lambda: OPS.affine(A, name="bn", scale=[1.0], shift=[0.0, 0.0]),
        ArgumentError,
        "'bn': scale must have a number for each of the 2 channels",
    ),
    "no number": (
        lambda: OPS.affine(A, name="bn", scale=[1.0, 1.0], shift=[0.0, float("nan")]),
        ArgumentError,
        "'bn': shift must hold finite",
    ),
    "groups": (
        lambda: OPS.group_norm(A, name="n", groups=3, epsilon=0.1, scale=[1.0] * 2, shift=[0.0] * 2),
        ArgumentError,
        "'n': groups must divide the 2 channels",
    ),
    "epsilon": (
        lambda: OPS.group_norm(A, name="n", groups=1, epsilon=-1.0, scale=[1.0] * 2, shift=[0.0] * 2),
        ArgumentError,
        "'n': epsilon must be a finite number >= 0",
    ),
    "widths": (
        lambda: OPS.multiply(A, A[:, :1], name="gate"),
        SiteError,
        "'gate': both operands must have the same channels",
    ),
    "another kind of pooling": (
        lambda: OPS.pool(A, torch.zeros(2, 1, dtype=torch.int32), name="pool", kind="min"),
        ArgumentError,
        "'pool': kind must be one of max, mean, sum, got 'min'",
    ),
    "a map of other sites": (
        lambda: OPS.pool(A, torch.tensor([[4], [0]], dtype=torch.int32), name="pool", kind="max"),
        SiteError,
        "pool: the kernel map reads input row 4, but there are 4 input rows",
    ),
    "no range": (
        lambda: OPS.multiply(A, A, name="gate", precision="int8", output_precision="int8"),
        CalibrationError,
        "no input0_dynamic_range",
    ),
    "ranges whose product is no number": (
        lambda: OPS.multiply(
            A, A, name="gate", **{**INT8, "input0_dynamic_range": 2.0**-90, "input1_dynamic_range": 2.0**-90}
        ),
        CalibrationError,
        "product of two int8 steps",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str) -> None:
    call, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        call()
