# SPDX-License-Identifier: Apache-2.0
"""Add, activations, dense map, reshapes, kernel maps and placeholder sites."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import scn_fx.ops  # noqa: F401  (registers the operators)
from scn_fx.errors import BoundError, CalibrationError, OverflowedError, ScnError, SiteError
from tests.ops.samples import (
    BATCH,
    GRID,
    random_sites,
    random_tensor,
    strided_arguments,
    subm_arguments,
    to_dense,
)

OPS = torch.ops.scn_fx
DENSE = {"name": "dense", "format": "zyx", "batch_size": BATCH, "spatial_shape": list(GRID)}


def test_add_in_float32_and_its_gradients() -> None:
    a, b = (random_tensor(40, 6, seed=seed).requires_grad_() for seed in (1, 2))
    assert torch.equal(OPS.add(a, b, name="add"), a + b)


@pytest.mark.parametrize(
    ("activation", "parameter", "function"),
    [
        ("ReLU", 0.0, F.relu),
        ("LeakyReLU", 0.1, lambda y: F.leaky_relu(y, 0.1)),
        ("LeakyReLU", -0.5, lambda y: F.leaky_relu(y, -0.5)),
        ("SiLU", 0.0, F.silu),
    ],
)
def test_add_with_an_activation_and_its_gradients(
    activation: str, parameter: float, function: Callable[[Any], Any]
) -> None:
    a, b = (random_tensor(40, 6, seed=seed).requires_grad_() for seed in (1, 2))
    y = OPS.add(a, b, name="add", activation=activation, activation_parameter=parameter)
    torch.testing.assert_close(y, function(a + b), rtol=1e-6, atol=1e-7)
    direction = random_tensor(40, 6, seed=3)
    found = torch.autograd.grad((y * direction).sum(), (a, b))
    expected = torch.autograd.grad((function(a + b) * direction).sum(), (a, b))
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_activations_take_finite_numbers_only() -> None:
    x = random_tensor(40, 6)
    for call in (OPS.leaky_relu, lambda x, **given: OPS.add(x, x, activation="LeakyReLU", **given)):
        with pytest.raises(ScnError, match="'leaky': negative_slope of LeakyReLU must be a finite float32"):
            call(x, name="leaky", activation_parameter=float("nan"))


def test_add_in_int8_quantises_both_operands() -> None:
    a, b = random_tensor(40, 6, seed=1), random_tensor(40, 6, seed=2)
    y = OPS.add(
        a,
        b,
        name="add",
        precision="int8",
        output_precision="int8",
        input0_dynamic_range=2.0,
        input1_dynamic_range=3.0,
    )
    parts = [
        (x * torch.tensor(127 / amax)).round().clamp(-128, 127).double() * (amax / 127)
        for x, amax in ((a, 2.0), (b, 3.0))
    ]
    torch.testing.assert_close(y, sum(parts).float(), rtol=1e-6, atol=1e-6)  # type: ignore[union-attr]


def test_add_in_float16() -> None:
    a, b = random_tensor(40, 6, seed=1).half(), random_tensor(40, 6, seed=2).half()
    y = OPS.add(a, b, name="add", precision="fp16", output_precision="fp16")
    assert torch.equal(y, (a.float() + b.float()).half())
    with pytest.raises(OverflowedError, match="add"):
        OPS.add(a * 0 + 60000, b * 0 + 60000, name="add", precision="fp16", output_precision="fp16")


def test_add_errors() -> None:
    a = random_tensor(40, 6)
    with pytest.raises(
        CalibrationError, match=r"'res\.add' computes in int8 but has no input1_dynamic_range"
    ):
        OPS.add(a, a, name="res.add", precision="int8", output_precision="fp16", input0_dynamic_range=1.0)
    with pytest.raises(SiteError, match=r"'add'.*same sites, got \[40, 6\] float32 and \[39, 6\] float32"):
        OPS.add(a, a[:39], name="add")
    with pytest.raises(SiteError, match=r"'add'.*same channels"):
        OPS.add(a, a[:, :5], name="add")


def test_relu_and_its_gradient() -> None:
    x = random_tensor(40, 6).requires_grad_()
    y = OPS.relu(x, name="relu")
    assert torch.equal(y, x.relu())
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(gradient, (x > 0).float())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_scatter_dense(dtype: torch.dtype) -> None:
    sites = random_sites()
    x = random_tensor(40, 6).to(dtype).requires_grad_()
    y = OPS.scatter_dense(x, sites, **DENSE)
    assert y.dtype == dtype
    assert torch.equal(y, to_dense(x, sites))
    direction = random_tensor(*y.shape, seed=1).to(dtype)
    (found,) = torch.autograd.grad((y * direction).sum(), x)
    (expected,) = torch.autograd.grad((to_dense(x, sites) * direction).sum(), x)
    assert torch.equal(found, expected)


def test_scatter_dense_errors() -> None:
    sites, x = random_sites(), random_tensor(40, 6)
    with pytest.raises(SiteError, match=r"'dense'.*\[39, 6\] float32.*\[40, 4\] int32"):
        OPS.scatter_dense(x[:39], sites, **DENSE)
    with pytest.raises(ScnError, match="'dense': format must be one of zyx, xyz, got 'yxz'"):
        OPS.scatter_dense(x, sites, **{**DENSE, "format": "yxz"})
    with pytest.raises(SiteError):
        OPS.scatter_dense(x, sites, **{**DENSE, "spatial_shape": [1, 1, 1]})


def test_reshape_and_transpose() -> None:
    x = random_tensor(2, 3, 4, 5).requires_grad_()
    y = OPS.transpose(OPS.reshape(x, name="flat", dims=[2, -1, 5]), name="turn", dims=[2, 0, -2])
    expected = x.reshape(2, 12, 5).permute(2, 0, 1)
    assert y.is_contiguous()
    assert torch.equal(y, expected)
    direction = random_tensor(5, 2, 12, seed=1)
    (found,) = torch.autograd.grad((y * direction).sum(), x)
    (wanted,) = torch.autograd.grad((expected * direction).sum(), x)
    assert torch.equal(found, wanted)


def test_reshape_and_transpose_errors() -> None:
    x = random_tensor(2, 3, 4)
    with pytest.raises(ScnError, match=r"'flat': expected a shape of 24 values.*got \[5, -1\]"):
        OPS.reshape(x, name="flat", dims=[5, -1])
    with pytest.raises(ScnError, match=r"'turn': expected a permutation of the 3 axes.*got \[0, 1, 1\]"):
        OPS.transpose(x, name="turn", dims=[0, 1, 1])


def test_a_submanifold_map_finds_the_neighbours() -> None:
    sites = torch.tensor([[0, 1, 1, 1], [0, 1, 1, 2], [1, 1, 1, 1]], dtype=torch.int32)
    kernel_map = OPS.subm_map(sites, **subm_arguments())
    assert kernel_map.dtype == torch.int32
    assert kernel_map[:, 13].tolist() == [0, 1, 2]  # the centre
    assert kernel_map[:, 14].tolist() == [1, -1, -1]  # one step along x
    assert kernel_map[:, 12].tolist() == [-1, 0, -1]


def test_an_inverse_map_swaps_the_sides() -> None:
    sites = random_sites()
    _, kernel_map = OPS.conv_map(sites, **strided_arguments())
    back = OPS.inverse_map(kernel_map, sites, name="up")
    forth = {(m, k, n) for (m, k), n in _entries(kernel_map)}
    assert forth == {(m, k, n) for (n, k), m in _entries(back)}


def _entries(kernel_map: torch.Tensor) -> list[tuple[tuple[int, int], int]]:
    return [((m, k), int(kernel_map[m, k])) for m, k in (kernel_map >= 0).nonzero().tolist()]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: s.long(),
            r"'conv': indices must be int32 \[N, 4\].*got \[40, 4\] int64.*indices\.int\(\)",
        ),
        (lambda s: s[:, :3], r"'conv': indices must be int32 \[N, 4\].*got \[40, 3\] int32"),
        (lambda s: torch.cat([s, s[:1]]), "conv"),
        (lambda s: s + 5, "conv"),
    ],
)
def test_sites_that_are_not_sites(change, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(SiteError, match=message):
        OPS.subm_map(change(random_sites()), **subm_arguments())


def test_a_strided_map_keeps_its_bound() -> None:
    with pytest.raises(BoundError, match=r"down.*\b3\b"):
        OPS.conv_map(random_sites(), **{**strided_arguments(), "output_bound": 3})


def test_placeholder_sites_are_valid() -> None:
    sites = OPS.input_sites(torch.zeros(100, 5), spatial_shape=list(GRID))
    assert sites.dtype == torch.int32
    assert len({tuple(s) for s in sites.tolist()}) == 100
    OPS.subm_map(sites, **subm_arguments())
    with pytest.raises(
        SiteError, match=r"at most 120 sites on a grid of \[4, 6, 5\], got features \[121, 5\]"
    ):
        OPS.input_sites(torch.zeros(121, 5), spatial_shape=list(GRID))
