# SPDX-License-Identifier: Apache-2.0
"""The convolution operator against dense convolutions: values, and gradients in float32."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import scn_fx.ops  # noqa: F401  (registers the operators)
from scn_fx.errors import BoundError, CalibrationError, OverflowedError, ScnError, SiteError
from tests.ops.samples import (
    GRID,
    at_sites,
    conv_arguments,
    random_sites,
    random_tensor,
    strided_arguments,
    subm_arguments,
    to_dense,
    torch_weight,
)

OPS = torch.ops.scn_fx


def _operands(count: int = 40, channels: tuple[int, int] = (6, 8)) -> tuple[Tensor, Tensor, Tensor]:
    c_in, c_out = channels
    return (
        random_tensor(count, c_in, seed=1),
        random_tensor(c_out, 3, 3, 3, c_in, seed=2) * 0.2,
        random_tensor(c_out, seed=3),
    )


def _submanifold(x: Tensor, w: Tensor, b: Tensor | None, output_bound: int = 1000, **changes: Any) -> Tensor:
    kernel_map = OPS.subm_map(random_sites(x.shape[0]), **subm_arguments(output_bound=output_bound))
    return OPS.convolution(x, w, b, kernel_map, **conv_arguments(**changes))


def test_submanifold_equals_dense() -> None:
    x, w, b = _operands()
    sites = random_sites()
    expected = at_sites(F.conv3d(to_dense(x, sites), torch_weight(w), b, padding=1), sites)
    torch.testing.assert_close(_submanifold(x, w, b), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        _submanifold(x, w, b, activation="ReLU"), expected.relu(), rtol=1e-5, atol=1e-5
    )


def test_strided_equals_dense_where_a_site_is_reached() -> None:
    x, w, b = _operands()
    sites = random_sites()
    arguments = strided_arguments()
    reached, kernel_map = OPS.conv_map(sites, **arguments)
    y = OPS.convolution(x, w, b, kernel_map, **conv_arguments())
    dense = F.conv3d(to_dense(x, sites), torch_weight(w), b, stride=2, padding=1)
    torch.testing.assert_close(y, at_sites(dense, reached), rtol=1e-5, atol=1e-5)
    touched = F.conv3d(to_dense(torch.ones(40, 1), sites), torch.ones(1, 1, 3, 3, 3), stride=2, padding=1)
    assert torch.equal(reached.long(), touched[:, 0].nonzero())


def test_inverse_returns_to_the_partners_sites() -> None:
    _, w, _ = _operands()
    sites = random_sites()
    reached, kernel_map = OPS.conv_map(sites, **strided_arguments())
    coarse = random_tensor(reached.shape[0], 6, seed=4)
    back = OPS.inverse_map(kernel_map, sites, name="up")
    y = OPS.convolution(coarse, w, None, back, **conv_arguments())
    grid = strided_arguments()["output_spatial_shape"]
    # The adjoint of the strided convolution, with the offsets of the partner: a transposed dense convolution.
    weight = torch_weight(w).permute(1, 0, 2, 3, 4)
    padded = [n - ((m - 1) * 2 + 1) for n, m in zip(GRID, grid, strict=True)]
    dense = F.conv_transpose3d(
        to_dense(coarse, reached, grid), weight, stride=2, padding=1, output_padding=padded
    )
    torch.testing.assert_close(y, at_sites(dense, sites), rtol=1e-5, atol=1e-5)


ACTIVATIONS: dict[tuple[str, float], Any] = {
    ("None", 0.0): lambda y: y,
    ("ReLU", 0.0): F.relu,
    ("LeakyReLU", 0.1): lambda y: F.leaky_relu(y, 0.1),
    ("LeakyReLU", -0.5): lambda y: F.leaky_relu(y, -0.5),
    ("SiLU", 0.0): F.silu,
    ("Sigmoid", 0.0): torch.sigmoid,
    ("Tanh", 0.0): torch.tanh,
    ("GELU", 0.0): F.gelu,
    ("GELUTanh", 0.0): lambda y: F.gelu(y, approximate="tanh"),
    ("ReLU6", 0.0): F.relu6,
    ("Hardswish", 0.0): F.hardswish,
    ("Hardsigmoid", 0.0): F.hardsigmoid,
}


@pytest.mark.parametrize(("activation", "parameter"), list(ACTIVATIONS))
def test_gradients_equal_those_of_a_dense_convolution(activation: str, parameter: float) -> None:
    operands = [t.requires_grad_() for t in _operands()]
    sites = random_sites()
    direction = random_tensor(40, 8, seed=5)
    found = torch.autograd.grad(
        (_submanifold(*operands, activation=activation, activation_parameter=parameter) * direction).sum(),
        operands,
    )
    x, w, b = operands
    y = at_sites(F.conv3d(to_dense(x, sites), torch_weight(w), b, padding=1), sites)
    y = ACTIVATIONS[activation, parameter](y)
    expected = torch.autograd.grad((y * direction).sum(), operands)
    for name, one, other in zip(("features", "weight", "bias"), found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("operand", [0, 1, 2])
def test_gradients_equal_differences(operand: int) -> None:
    # Without an activation the result is affine in each operand: differences of any step are exact but for
    # rounding.
    operands = [t.requires_grad_() for t in _operands()]
    weights = random_tensor(40, 8, seed=5)

    def loss(*tensors: Tensor) -> Tensor:
        return (_submanifold(*tensors) * weights).double().sum()

    (gradient,) = torch.autograd.grad(loss(*operands), operands[operand : operand + 1])
    direction = random_tensor(*operands[operand].shape, seed=6)
    ahead, behind = [[t.detach() for t in operands] for _ in range(2)]
    ahead[operand] = ahead[operand] + direction
    behind[operand] = behind[operand] - direction
    difference = (loss(*ahead) - loss(*behind)) / 2
    torch.testing.assert_close((gradient * direction).double().sum(), difference, rtol=1e-4, atol=1e-4)


def test_gradients_of_a_strided_convolution_without_bias() -> None:
    x, w, _ = (t.requires_grad_() for t in _operands())
    sites = random_sites()
    reached, kernel_map = OPS.conv_map(sites, **strided_arguments())
    y = OPS.convolution(x, w, None, kernel_map, **conv_arguments())
    dense = at_sites(F.conv3d(to_dense(x, sites), torch_weight(w), stride=2, padding=1), reached)
    for one, other in zip(
        torch.autograd.grad(y.square().sum(), (x, w)),
        torch.autograd.grad(dense.square().sum(), (x, w)),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_int8_is_the_integer_arithmetic_of_the_ranges() -> None:
    x, w, b = _operands()
    ranges = w.half().float().abs().amax((1, 2, 3, 4))
    amax = 2.5
    y = _submanifold(
        x, w, b, precision="int8", output_precision="int8", input_dynamic_range=amax,
        weight_dynamic_ranges=ranges.tolist(),
    )  # fmt: skip
    assert y.dtype == torch.float32

    def quantise(values: Tensor, scale: Tensor) -> Tensor:
        return (values * scale).round().clamp(-128, 127)

    top = torch.tensor(127.0)
    qx = quantise(x, top / amax)
    qw = quantise(w.half().float(), (top / ranges).reshape(-1, 1, 1, 1, 1))
    sites = random_sites()
    total = at_sites(F.conv3d(to_dense(qx, sites).double(), torch_weight(qw).double(), padding=1), sites)
    scale = (torch.tensor(amax) / 127) * (ranges / 127)
    expected = (total * scale.double() + b.half().double()).float()
    torch.testing.assert_close(y, expected, rtol=1e-6, atol=1e-6)


def test_float16_result_is_the_rounded_one() -> None:
    x, w, b = _operands()
    unrounded = _submanifold(x, w, b, precision="fp16", output_precision="int8")
    rounded = _submanifold(x, w, b, precision="fp16", output_precision="fp16")
    assert rounded.dtype == torch.float16
    assert torch.equal(unrounded.half(), rounded)
    assert torch.equal(
        rounded, _submanifold(x.half(), w.half(), b.half(), precision="fp16", output_precision="fp16")
    )


def _range(value: float | None, weights: list[float] | None) -> dict[str, Any]:
    return {
        "precision": "int8",
        "output_precision": "fp16",
        "input_dynamic_range": value,
        "weight_dynamic_ranges": weights,
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            _range(None, [1.0] * 8),
            r"'conv' computes in int8 but has no input_dynamic_range.*quant\.calibrate",
        ),
        (_range(1.0, None), r"'conv' computes in int8 but has no weight_dynamic_ranges.*quant\.calibrate"),
        (
            _range(0.0, [1.0] * 8),
            r"'conv'.*input_dynamic_range must be a number from 7\.9e-31 to .*, got 0\.0",
        ),
        (
            _range(float("nan"), [1.0] * 8),
            r"input_dynamic_range must be a number from 7\.9e-31 to .*, got nan",
        ),
        (
            _range(float("inf"), [1.0] * 8),
            r"input_dynamic_range must be a number from 7\.9e-31 to .*, got inf",
        ),
        (_range(1e-60, [1.0] * 8), "input_dynamic_range must be a number from 7.9e-31"),
        (
            _range(1e-37, [1.0] * 8),
            "input_dynamic_range must be a number from 7.9e-31",
        ),  # 127 / amax overflows
        (
            _range(1.0, [1.0] * 7 + [0.0]),
            r"weight_dynamic_ranges\[7\] must be a number from 7.9e-31.*use 1\.0",
        ),
        (_range(1.0, [1.0] * 7), r"one range per output channel \(8\), got 7"),
    ],
)
def test_unusable_ranges(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        _submanifold(*_operands(), **changes)


def test_more_sites_than_the_bound() -> None:
    with pytest.raises(BoundError, match=r"Layer 'conv' has 40 output sites.*output_bound of 39"):
        _submanifold(*_operands(), output_bound=39)
    sites = random_sites()
    _, kernel_map = OPS.conv_map(sites, **strided_arguments())
    with pytest.raises(BoundError, match=r"Layer 'up' has 40 output sites.*output_bound of 39"):
        OPS.inverse_map(kernel_map, sites, name="up", output_bound=39)


@pytest.mark.parametrize("rows", [39, 41])
def test_every_map_knows_how_many_rows_it_reads(rows: int) -> None:
    _, w, b = _operands()
    sites = random_sites()
    reached, strided = OPS.conv_map(sites, **strided_arguments())
    back = OPS.inverse_map(strided, sites, name="up")
    x = random_tensor(rows, 6)
    for kernel_map, count in ((OPS.subm_map(sites, **subm_arguments()), 40), (strided, 40)):
        with pytest.raises(SiteError, match=rf"'conv'.*{rows} rows of features for {count} sites"):
            OPS.convolution(x, w, b, kernel_map, **conv_arguments())
    with pytest.raises(SiteError, match=rf"rows of features for {len(reached)} sites"):
        OPS.convolution(random_tensor(len(reached) + 1, 6), w, b, back, **conv_arguments())


def test_float16_overflow_is_reported() -> None:
    x, w, b = _operands()
    for operands in ((x * 1e6, w, b), (x, w * 1e6, b), (x, w, b * 1e6)):
        with pytest.raises(OverflowedError, match=r"Layer 'conv'.*float16"):
            _submanifold(*operands, precision="fp16", output_precision="fp16")
    with pytest.raises(OverflowedError, match="conv"):
        _submanifold(x * 1e3, w * 1e3, b, precision="fp16", output_precision="fp16")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda x, w, b: (x[:, :5], w, b), r"'conv': features must have 6 channels.*got \[40, 5\] float32"),
        (
            lambda x, w, b: (x.double(), w, b),
            r"'conv': features must be float16, bfloat16 or float32.*float64",
        ),
        (lambda x, w, b: (x[:39], w, b), r"'conv'.*39 rows of features for 40 sites"),
        (
            lambda x, w, b: (x, w[:, :2], b),
            r"'conv': the kernel map must be int32 \[M, 18\].*got \[40, 27\] int32",
        ),
        (lambda x, w, b: (x, w, b[:7]), r"'conv': bias must be .*\[8\], got \[7\]"),
    ],
)
def test_operands_that_do_not_fit(make: Any, message: str) -> None:
    kernel_map = OPS.subm_map(random_sites(), **subm_arguments())
    with pytest.raises(ScnError, match=message):
        OPS.convolution(*make(*_operands()), kernel_map, **conv_arguments())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"activation": "Mish"}, "activation must be one of None, ReLU, LeakyReLU, SiLU, .*, got 'Mish'"),
        ({"precision": "int4"}, "precision must be one of fp32, fp16, int8, got 'int4'"),
        ({"precision": "fp16", "output_precision": "fp32"}, "output_precision 'fp32' needs precision 'fp32'"),
    ],
)
def test_unknown_choices(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ScnError, match=f"Layer 'conv': {message}"):
        _submanifold(*_operands(), **changes)


def test_a_kernel_map_of_another_kernel() -> None:
    x, w, b = _operands()
    kernel_map = OPS.subm_map(random_sites(), **subm_arguments(kernel=1))
    with pytest.raises(
        SiteError, match=r"Layer 'conv': the kernel map must be int32 \[M, 27\].*got \[40, 1\] int32"
    ):
        OPS.convolution(x, w, b, kernel_map, **conv_arguments())


def test_gradients_of_gradients_equal_those_of_a_dense_convolution() -> None:
    operands = [t.requires_grad_() for t in _operands()]
    sites = random_sites()

    def second(y: Tensor) -> tuple[Tensor, ...]:
        first = torch.autograd.grad(y.square().sum(), operands, create_graph=True)
        return torch.autograd.grad(sum((g.square().sum() for g in first), y.new_zeros(())), operands)

    x, w, b = operands
    dense = at_sites(F.conv3d(to_dense(x, sites), torch_weight(w), b, padding=1), sites)
    for one, other in zip(second(_submanifold(*operands)), second(dense), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3 * float(other.abs().max()))


def test_a_map_that_changed_before_the_gradient_is_taken() -> None:
    operands = [t.requires_grad_() for t in _operands()]
    kernel_map = OPS.subm_map(random_sites(), **subm_arguments())
    y = OPS.convolution(*operands, kernel_map, **conv_arguments())
    kernel_map.numpy()[3, 2] = 2**30
    for operand in operands[:2]:
        with pytest.raises(SiteError, match=r"conv.*reads input row 1073741824, but there are 40"):
            torch.autograd.grad(y.sum(), operand, retain_graph=True)


def test_an_inverse_is_made_again_for_a_map_that_changed() -> None:
    x, w, _ = (t.requires_grad_() for t in _operands())
    kernel_map = OPS.subm_map(random_sites(), **subm_arguments())

    def by_features() -> Tensor:
        y = OPS.convolution(x, w, None, kernel_map, **conv_arguments())
        return torch.autograd.grad(y.sum(), x)[0]

    assert torch.equal(by_features(), by_features())
    kernel_map[:, :13] = -1
    by_offset = w.detach().sum(0).reshape(27, 6)
    expected = torch.zeros(40, 6)
    for k in range(13, 27):
        read = kernel_map[:, k]
        expected.index_add_(0, read[read >= 0].long(), by_offset[k].expand(int((read >= 0).sum()), 6))
    torch.testing.assert_close(by_features(), expected, rtol=1e-5, atol=1e-5)


def test_a_map_without_an_inverse_has_no_gradient_by_the_features() -> None:
    x, w, b = (t.requires_grad_() for t in _operands())
    kernel_map = torch.full((40, 27), -1, dtype=torch.int32)
    kernel_map[:2, 5] = 7
    y = OPS.convolution(x, w, b, kernel_map, **conv_arguments())
    with pytest.raises(SiteError, match=r"1 of 2 pairs of the kernel map.*no inverse"):
        y.sum().backward()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_operands_as_autocast_brings_them(dtype: torch.dtype) -> None:
    x, w, b = (t.to(dtype).requires_grad_() for t in _operands())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = _submanifold(x, w, b)
        y.square().sum().backward()
    assert y.dtype == torch.float32
    again = [t.detach().float().requires_grad_() for t in (x, w, b)]
    expected = _submanifold(*again)
    expected.square().sum().backward()
    torch.testing.assert_close(y, expected, rtol=1e-6, atol=1e-6)
    for one, other in zip((x, w, b), again, strict=True):
        assert one.grad is not None and other.grad is not None
        assert torch.equal(one.grad, other.grad.to(dtype))
