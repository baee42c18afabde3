# SPDX-License-Identifier: Apache-2.0
"""Straight-through gradients against numpy in float64: as used in products, masked where a range is left."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

import scn_fx.ops  # noqa: F401  (registers the operators)
from tests.ops.samples import conv_arguments, random_sites, random_tensor, subm_arguments

OPS = torch.ops.scn_fx
Array = npt.NDArray[Any]


def quantised(values: Array, amax: Array | float) -> tuple[Array, Array]:
    """What int8 makes of float32 values, as float64, and where they were within the range."""
    limit = np.float32(amax)
    steps = np.rint(values.astype(np.float32) * (np.float32(127) / limit))
    used = np.clip(steps, -128, 127).astype(np.float64) * limit.astype(np.float64) / 127
    return used, (steps >= -128) & (steps <= 127)


def gradients(x: Array, w: Array, grad: Array, kernel_map: Array) -> tuple[Array, Array]:
    """Of Σ grad · y by x [N, in] and w [out, K, in], pair by pair in float64."""
    by_x, by_w = np.zeros(x.shape), np.zeros(w.shape)
    for m, k in zip(*np.nonzero(kernel_map >= 0), strict=True):
        n = kernel_map[m, k]
        by_x[n] += grad[m] @ w[:, k]
        by_w[:, k] += np.outer(grad[m], x[n])
    return by_x, by_w


def convolution_case(precision: str, device: str = "cpu") -> tuple[list[Array], list[Array]]:
    """Gradients of features, weight and bias that the operator gives, and those expected."""
    x, b = random_tensor(40, 6, seed=1) * 2, random_tensor(8, seed=3)
    w = random_tensor(8, 3, 3, 3, 6, seed=2) * 0.2
    direction = random_tensor(40, 8, seed=5)
    ranges = [0.3 + 0.05 * n for n in range(8)]  # narrower than some weights
    int8 = {"input_dynamic_range": 2.5, "weight_dynamic_ranges": ranges} if precision == "int8" else {}
    x[0, 0], x[1, 1] = -2.5 * 128.4 / 127, 2.5 * 127.6 / 127  # -128 is within the range, 128 is not
    kernel_map = OPS.subm_map(random_sites(), **subm_arguments())
    operands = [t.clone().to(device).requires_grad_() for t in (x, w, b)]
    y = OPS.convolution(
        *operands, kernel_map.to(device),
        **conv_arguments(activation="ReLU", precision=precision, output_precision="fp16", **int8),
    )  # fmt: skip
    found = torch.autograd.grad((y.float() * direction.to(device)).sum(), operands)

    grad = np.where(y.detach().cpu().numpy() > 0, direction.numpy(), 0).astype(np.float16).astype(np.float64)
    flat = w.reshape(8, 27, 6).numpy().astype(np.float16)
    if precision == "int8":
        used_x, inside_x = quantised(x.numpy(), 2.5)
        used_w, inside_w = quantised(flat, np.array(ranges, np.float32).reshape(8, 1, 1))
        assert inside_x[0, 0] and not inside_x[1, 1] and 0 < inside_w.mean() < 1
    else:
        used_x, inside_x = x.numpy().astype(np.float16).astype(np.float64), np.array(True)
        used_w, inside_w = flat.astype(np.float64), np.array(True)
    by_x, by_w = gradients(used_x, used_w, grad, kernel_map.numpy())
    expected = [by_x * inside_x, (by_w * inside_w).reshape(w.shape), grad.sum(0)]
    return [g.cpu().numpy() for g in found], expected


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_convolution(precision: str) -> None:
    for found, expected in zip(*convolution_case(precision), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
        assert np.any(expected)


def test_add_in_int8() -> None:
    a = torch.tensor([[1.0, -1.0, 0.996, -1.01], [0.5, 3.0, -3.0, 0.0]]).requires_grad_()
    b = torch.tensor([[1.0, 0.5, 2.1, 1.0], [0.0, 0.0, 1.0, 0.25]]).requires_grad_()
    y = OPS.add(
        a, b, name="sum", precision="int8", output_precision="int8", activation="ReLU",
        input0_dynamic_range=1.0, input1_dynamic_range=2.0,
    )  # fmt: skip
    direction = random_tensor(2, 4, seed=7)
    found = torch.autograd.grad((y * direction).sum(), (a, b))
    passed = np.where(y.detach().numpy() > 0, direction.numpy(), 0)
    for gradient, operand, amax in zip(found, (a, b), (1.0, 2.0), strict=True):
        _, inside = quantised(operand.detach().numpy(), amax)
        assert not inside.all()
        np.testing.assert_array_equal(gradient.numpy(), passed * inside)


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_add_in_float16_passes_everything(precision: str) -> None:
    a, b = (random_tensor(5, 3, seed=n).requires_grad_() for n in (1, 2))
    y = OPS.add(a, b, name="sum", precision=precision, output_precision="fp16")
    direction = random_tensor(5, 3, seed=3).half()
    for gradient in torch.autograd.grad((y * direction).sum(), (a, b)):
        assert torch.equal(gradient, direction.float())
