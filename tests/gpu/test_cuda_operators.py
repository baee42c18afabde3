# SPDX-License-Identifier: Apache-2.0
"""The operators on CUDA against the same on the CPU: maps and int8 to the bit, floats within rounding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import scn_fx.ops  # noqa: F401  (registers the operators)
from scn_fx.errors import BoundError, NonFiniteError, OverflowedError, SiteError
from tests.core.activations import EVERY, Named, activations
from tests.gpu.test_cuda_kernel_maps import SHAPE as FAR_SHAPE
from tests.gpu.test_cuda_kernel_maps import far_sites
from tests.ops.samples import conv_arguments, random_sites, random_tensor, strided_arguments, subm_arguments
from tests.ops.test_registration import _cases
from tests.ops.test_straight_through import convolution_case
from tests.oracle.compare import assert_same_bits

pytestmark = pytest.mark.gpu

OPS = torch.ops.scn_fx
Call = tuple[Tensor, dict[str, Any]]


def on_gpu(value: Any) -> Any:
    if isinstance(value, list):
        return [on_gpu(each) for each in value]
    return value.cuda() if isinstance(value, Tensor) else value


def leaf_on_gpu(value: Any) -> Any:
    """A copy on the GPU that wants a gradient where the original does."""
    if isinstance(value, list):
        return [leaf_on_gpu(each) for each in value]
    return None if value is None else value.cuda().detach().requires_grad_(value.requires_grad)


@pytest.mark.parametrize("case", list(_cases()))
def test_opcheck(case: str) -> None:
    operator, args, kwargs = _cases()[case]
    torch.library.opcheck(operator.default, tuple(map(leaf_on_gpu, args)), kwargs)


@st.composite
def map_calls(draw: st.DrawFn) -> Call:
    """Random sites in random order, and the arguments of a strided or transposed map over them."""
    few, tiny = st.integers(1, 4), st.integers(0, 3)
    three = st.tuples(few, few, few)
    shape = draw(st.tuples(st.integers(1, 6), st.integers(1, 40), st.integers(1, 70)))
    kernel, stride, dilation = draw(three), draw(three), draw(three)
    padding, transposed, batch = draw(st.tuples(tiny, tiny, tiny)), draw(st.booleans()), draw(few)
    cells = batch * int(np.prod(shape))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    count = min(cells, draw(st.sampled_from([0, 1, 2, 65, 500, 3000])))
    columns = np.unravel_index(rng.permutation(cells)[:count], (batch, *shape))
    sites = torch.from_numpy(np.stack(columns, 1).astype(np.int32).reshape(-1, 4))
    out = [
        (n - 1) * s - 2 * p + d * (k - 1) + 1 if transposed else (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, s, p, d in zip(shape, kernel, stride, padding, dilation, strict=True)
    ]
    return sites, {
        "name": "map",
        "batch_size": batch,
        "input_spatial_shape": list(shape),
        "output_spatial_shape": [max(1, n) for n in out],
        "kernel_size": list(kernel),
        "stride": list(stride),
        "padding": list(padding),
        "dilation": list(dilation),
        "transposed": transposed,
        "output_bound": 10**6,
    }


@given(map_calls())
def test_maps_are_those_of_the_cpu(call: Call) -> None:
    sites, arguments = call
    expected_sites, expected = OPS.conv_map(sites, **arguments)
    found_sites, found = OPS.conv_map(sites.cuda(), **arguments)
    assert torch.equal(found_sites.cpu(), expected_sites)
    assert torch.equal(found.cpu(), expected)
    back = OPS.inverse_map(expected, sites, name="back")
    assert torch.equal(OPS.inverse_map(found, sites.cuda(), name="back").cpu(), back)
    assert torch.equal(OPS.inverse_map(expected.cuda(), sites.cuda(), name="back").cpu(), back)
    subm = {k: arguments[k] for k in ("name", "batch_size", "kernel_size", "dilation")}
    subm["spatial_shape"] = arguments["input_spatial_shape"]
    assert torch.equal(OPS.subm_map(sites.cuda(), **subm).cpu(), OPS.subm_map(sites, **subm))


@given(map_calls(), st.data())
def test_convolutions_and_their_gradients(call: Call, data: st.DataObject) -> None:
    sites, arguments = call
    _, kernel_map = OPS.conv_map(sites, **arguments)
    widths = st.sampled_from([1, 3, 5, 8, 9, 16, 24, 32, 48, 64, 70, 128])
    c_in, c_out = data.draw(widths), data.draw(widths)
    precision = data.draw(st.sampled_from(["fp32", "fp16", "int8"]))
    output = data.draw(st.sampled_from(["fp16", "fp32" if precision == "fp32" else "int8"]))
    (activation, parameter), biased = data.draw(activations), data.draw(st.booleans())
    volume = kernel_map.shape[1]
    operands = [
        random_tensor(len(sites), c_in, seed=1),
        random_tensor(c_out, *arguments["kernel_size"], c_in, seed=2) * (0.5 / np.sqrt(c_in * volume)),
        random_tensor(c_out, seed=3) if biased else None,
    ]
    ranges = {"input_dynamic_range": 2.5, "weight_dynamic_ranges": [0.2] * c_out}
    options = conv_arguments(
        activation=activation, activation_parameter=parameter, precision=precision, output_precision=output,
        **(ranges if precision == "int8" else {}),
    )  # fmt: skip
    direction = random_tensor(len(kernel_map), c_out, seed=4)
    results = []
    for device in ("cpu", "cuda"):
        leaves = [None if t is None else t.detach().to(device).requires_grad_() for t in operands]
        y = OPS.convolution(*leaves, kernel_map.to(device), **options)
        leaves = [t for t in leaves if t is not None]
        grads = torch.autograd.grad((y.float() * direction.to(device)).sum(), leaves)
        results.append([t.detach().cpu() for t in (y, *grads)])
    (y, *expected), (found, *grads) = results
    assert found.dtype == y.dtype and found.shape == y.shape
    if precision == "int8" or c_in <= 8:
        assert_same_bits(found.numpy(), y.numpy())
        bound = 1e-4
    else:
        torch.testing.assert_close(found, y, rtol=2e-3, atol=2e-3)
        bound = None  # an activation may see the other side of zero
    for one, other in zip(grads, expected, strict=True):
        if bound and other.numel():
            scale = float(other.abs().max())
            torch.testing.assert_close(one, other, rtol=bound, atol=bound * max(scale, 1.0))
        elif activation == "None" and other.numel():
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3 * max(float(other.abs().max()), 1.0))


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_straight_through_gradients(precision: str) -> None:
    for found, expected in zip(*convolution_case(precision, "cuda"), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("channels", [4, 16])
def test_gradients_equal_differences(channels: int) -> None:
    kernel_map = OPS.subm_map(random_sites().cuda(), **subm_arguments())
    operands = tuple(
        t.cuda().requires_grad_()
        for t in (
            random_tensor(40, channels, seed=1),
            random_tensor(8, 3, 3, 3, channels, seed=2) * 0.2,
            random_tensor(8, seed=3),
        )
    )

    def run(*tensors: Tensor) -> Tensor:
        return OPS.convolution(*tensors, kernel_map, **conv_arguments())

    # The result is affine in each operand, so that a large step costs no exactness in float32.
    assert torch.autograd.gradcheck(run, operands, eps=0.5, atol=1e-3, rtol=1e-3, fast_mode=True)
    assert torch.autograd.gradgradcheck(run, operands, eps=0.05, atol=3e-2, rtol=3e-2, fast_mode=True)


@pytest.mark.parametrize("channels", [3, 16, 64])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_rows_far_from_each_other(channels: int, precision: str) -> None:
    sites = torch.from_numpy(far_sites(np.random.default_rng(channels)))
    arguments = {"name": "far", "batch_size": 1, "spatial_shape": list(FAR_SHAPE),
                 "kernel_size": [3] * 3, "dilation": [1] * 3}  # fmt: skip
    kernel_map = OPS.subm_map(sites, **arguments)
    found_map = OPS.subm_map(sites.cuda(), **arguments)
    assert torch.equal(found_map.cpu(), kernel_map)
    x, w = random_tensor(len(sites), channels), random_tensor(16, 3, 3, 3, channels, seed=1) * 0.1
    ranges = {"input_dynamic_range": 3.0, "weight_dynamic_ranges": [0.3] * 16}
    options = conv_arguments(
        precision=precision, output_precision="fp32" if precision == "fp32" else "fp16",
        **(ranges if precision == "int8" else {}),
    )  # fmt: skip
    expected = OPS.convolution(x, w, None, kernel_map, **options)
    found = OPS.convolution(x.cuda(), w.cuda(), None, found_map, **options).cpu()
    if precision == "int8" or channels <= 8:
        assert torch.equal(found, expected)
    else:
        torch.testing.assert_close(found, expected, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("output", ["fp16", "int8"])
@pytest.mark.parametrize("activation", EVERY)
def test_add(precision: str, output: str, activation: Named) -> None:
    a, b = random_tensor(100, 7, seed=1), random_tensor(100, 7, seed=2)
    name, parameter = activation
    options = {"name": "sum", "activation": name, "activation_parameter": parameter,
               "precision": precision, "output_precision": output,
               "input0_dynamic_range": 1.5, "input1_dynamic_range": 0.7}  # fmt: skip
    expected = OPS.add(a, b, **options)
    found = OPS.add(a.cuda(), b.cuda(), **options).cpu()
    assert found.dtype == expected.dtype and torch.equal(found, expected)


def test_scatter_reshape_transpose_relu() -> None:
    sites, x = random_sites(), random_tensor(40, 6)
    dense = {"name": "d", "format": "zyx", "batch_size": 2, "spatial_shape": [4, 6, 5]}
    for device in ("cpu", "cuda"):
        leaf = x.detach().to(device).requires_grad_()
        y = OPS.scatter_dense(OPS.relu(leaf, name="r"), sites.to(device), **dense)
        y = OPS.transpose(OPS.reshape(y, name="f", dims=[2, 24, 6, 5]), name="t", dims=[0, 2, 3, 1])
        (grad,) = torch.autograd.grad(y.square().sum(), leaf)
        if device == "cpu":
            expected = y.detach(), grad
    assert torch.equal(y.detach().cpu(), expected[0]) and torch.equal(grad.cpu(), expected[1])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast(dtype: torch.dtype) -> None:
    kernel_map = OPS.subm_map(random_sites().cuda(), **subm_arguments())
    x, w, b = (
        t.cuda().requires_grad_()
        for t in (random_tensor(40, 16), random_tensor(8, 3, 3, 3, 16, seed=1), random_tensor(8, seed=2))
    )
    with torch.autocast("cuda", dtype=dtype):
        given = torch.nn.functional.linear(x, torch.eye(16, device="cuda"))
        assert given.dtype == dtype
        y = OPS.convolution(given, w, b, kernel_map, **conv_arguments())
        y.square().sum().backward()
    again = [t.detach().requires_grad_() for t in (given.detach().float(), w, b)]
    expected = OPS.convolution(*again, kernel_map, **conv_arguments())
    expected.square().sum().backward()
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-4)  # float32, not the autocast's dtype
    torch.testing.assert_close(w.grad, again[1].grad, rtol=1e-4, atol=1e-3)


def test_on_the_current_stream() -> None:
    sites = random_sites()
    x, w = random_tensor(40, 16), random_tensor(8, 3, 3, 3, 16, seed=1)
    expected = OPS.convolution(x, w, None, OPS.subm_map(sites, **subm_arguments()), **conv_arguments())
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(100_000_000)  # what follows would come too early on another stream
        moved = [t.cuda(non_blocking=True) for t in (x.pin_memory(), w.pin_memory(), sites.pin_memory())]
        kernel_map = OPS.subm_map(moved[2], **subm_arguments())
        y = OPS.convolution(moved[0], moved[1], None, kernel_map, **conv_arguments())
    stream.synchronize()
    torch.testing.assert_close(y.cpu(), expected, rtol=1e-4, atol=1e-4)


def test_gradients_are_the_same_in_every_run() -> None:
    kernel_map = OPS.subm_map(random_sites().cuda(), **subm_arguments())
    x, w = (t.cuda().requires_grad_() for t in (random_tensor(40, 16), random_tensor(8, 3, 3, 3, 16, seed=1)))
    runs = []
    for _ in range(3):
        y = OPS.convolution(x, w, None, kernel_map, **conv_arguments())
        runs.append(torch.autograd.grad(y.square().sum(), (x, w)))
    for run in runs[1:]:
        assert all(torch.equal(one, other) for one, other in zip(run, runs[0], strict=True))


def _conv(x: Tensor, kernel_map: Tensor, **changes: Any) -> Tensor:
    w = random_tensor(8, 3, 3, 3, x.shape[1], seed=2).cuda() * 0.2
    return OPS.convolution(x, w, None, kernel_map, **conv_arguments(**changes))


def test_errors_are_those_of_the_cpu() -> None:
    sites = random_sites().cuda()
    outside = sites.clone()
    outside[3, 1] = -1
    twice = sites.clone()
    twice[7] = twice[5]
    with pytest.raises(SiteError, match=r"conv: 1 of 40 sites lie outside.*in row 3, expected batch < 2"):
        OPS.subm_map(outside, **subm_arguments())
    with pytest.raises(SiteError, match=r"down: .*is a duplicate"):
        OPS.conv_map(twice, **strided_arguments())
    with pytest.raises(BoundError, match=r"down: \d+ output sites, but output_bound is 3"):
        OPS.conv_map(sites, **{**strided_arguments(), "output_bound": 3})
    with pytest.raises(SiteError, match="lie outside"):
        OPS.scatter_dense(
            random_tensor(40, 3).cuda(),
            outside,
            name="d",
            format="zyx",
            batch_size=2,
            spatial_shape=[4, 6, 5],
        )
    kernel_map = OPS.subm_map(sites, **subm_arguments())
    x = random_tensor(40, 16).cuda()
    kernel_map[3, 2] = 40
    for precision in ("fp32", "fp16"):
        with pytest.raises(SiteError, match="conv: the kernel map reads input row 40, but there are 40"):
            _conv(x, kernel_map, precision=precision, output_precision="fp16")
    with pytest.raises(SiteError, match="back: the kernel map reads input row 40"):
        OPS.inverse_map(kernel_map, sites, name="back")
    kernel_map[3, 2] = kernel_map[4, 2] = 7
    with pytest.raises(SiteError, match=r"pairs of the kernel map.*no inverse"):
        OPS.inverse_map(kernel_map, sites, name="back")


def test_values_that_a_precision_does_not_have() -> None:
    kernel_map = OPS.subm_map(random_sites().cuda(), **subm_arguments())
    int8 = {"precision": "int8", "output_precision": "fp16", "input_dynamic_range": 2.0,
            "weight_dynamic_ranges": [1.0] * 8}  # fmt: skip
    x = random_tensor(40, 16).cuda()
    bad = x.clone()
    bad[3, 4] = float("nan")
    with pytest.raises(NonFiniteError, match="conv: its input holds 1 values"):
        _conv(bad, kernel_map, **int8)
    for c_in in (4, 16):
        large = random_tensor(40, c_in).cuda() * 3e4
        for precision in ("fp16", "fp32"):
            with pytest.raises(OverflowedError, match="float16"):
                _conv(large, kernel_map, precision=precision, output_precision="fp16")
    with pytest.raises(NonFiniteError, match="sum: its second input holds 1"):
        OPS.add(x, bad, name="sum", precision="int8", output_precision="fp16", input0_dynamic_range=1.0,
                input1_dynamic_range=1.0)  # fmt: skip
    nan = _conv(bad, kernel_map, activation="ReLU")
    assert nan.isnan().any() and not nan.isnan().all()
