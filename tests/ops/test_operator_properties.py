# SPDX-License-Identifier: Apache-2.0
"""Random arguments, many of them impossible: the numpy reference's result, or an error of scn-fx."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import scn_fx.ops  # noqa: F401  (registers the operators)
from scn_fx.errors import ScnError
from tests.oracle import geometry, numerics

OPS = torch.ops.scn_fx
HUGE = [-(2**63), -(2**31) - 1, -(2**31), -1, 0, 2**30, 2**31 - 1, 2**31, 2**32 + 1, 2**63 - 1]
small = st.integers(1, 5)
whole = st.one_of(small, small, small, st.sampled_from(HUGE))


def mostly(good: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Triples, nearly always of possible numbers."""
    return st.one_of(st.lists(good, min_size=3, max_size=3), st.lists(whole, min_size=3, max_size=3))


triples = st.one_of(mostly(small), mostly(small), st.lists(whole, max_size=4))
ranges = st.one_of(
    st.sampled_from([1.0, 3.0, 2.0**-100, 2.0**100, 0.0, -1.0, 1e-40, float("nan")]), st.none()
)
precisions = st.sampled_from(["fp32", "fp32", "fp16", "int8", ""])
counts = st.integers(0, 12)


def _sites(draw: st.DrawFn, shape: list[int], batch: int, count: int) -> np.ndarray:
    """Some sites of the grid, often distinct, now and then none of it at all."""
    top = [min(max(n, 1), 6) for n in [batch, *[*shape, 1, 1, 1][:3]]]
    rows = draw(
        st.lists(st.tuples(*(st.integers(0, n - 1) for n in top)), max_size=count, unique=draw(st.booleans()))
    )
    sites = np.array(rows, np.int32).reshape(-1, 4)
    if len(sites) and draw(st.integers(0, 9)) == 0:
        sites[draw(st.integers(0, len(sites) - 1)), draw(st.integers(0, 3))] = draw(
            st.sampled_from([-1, 7, 2**31 - 1, -(2**31)])
        )
    return sites


def _tensor(draw: st.DrawFn, array: np.ndarray) -> torch.Tensor:
    """The array as a tensor, sometimes of another dtype, shape or order of memory."""
    tensor = torch.from_numpy(array)
    change = draw(st.integers(0, 19))
    if change == 0:
        return tensor.to(draw(st.sampled_from([torch.int64, torch.float64, torch.bfloat16, torch.bool])))
    if change == 1:
        return tensor[..., :-1]
    if change == 2:
        return tensor.unsqueeze(0)
    if change == 3:
        return tensor.t().contiguous().t() if tensor.dim() == 2 else tensor
    if change == 4 and tensor.is_floating_point():
        return tensor.clone().requires_grad_()
    return tensor


def _refused_or(call: Any, reference: Any) -> None:
    """Either the call is refused, or its result is the reference's."""
    try:
        with torch.no_grad():
            found = call()
    except ScnError as error:
        assert str(error)
        return
    found = found if isinstance(found, tuple) else (found,)
    expected = reference()
    for got, want in zip(found, expected if isinstance(expected, tuple) else (expected,), strict=True):
        assert got.shape == want.shape
        np.testing.assert_allclose(
            got.double().numpy(), np.asarray(want, np.float64), rtol=2e-3, atol=1e-2, equal_nan=True
        )


def _sites_of(tensor: torch.Tensor) -> np.ndarray:
    """Indices as int32 [N, 4]: two columns fewer are those of a grid of one cell along z and y."""
    sites = _as(tensor, np.int32)
    zeros = np.zeros((len(sites), 4 - sites.shape[1]), np.int32)
    return np.concatenate([sites[:, :1], zeros, sites[:, 1:]], 1)


def _as(tensor: torch.Tensor, dtype: Any) -> np.ndarray:
    tensor = tensor.detach()
    known = tensor.float() if tensor.dtype == torch.bfloat16 else tensor  # numpy has no bfloat16
    return np.ascontiguousarray(known.numpy().astype(dtype))


@st.composite
def map_calls(draw: st.DrawFn) -> tuple[str, torch.Tensor, dict[str, Any]]:
    kind = draw(st.sampled_from(["subm", "conv"]))
    shape, batch = draw(triples), draw(whole)
    sites = _tensor(draw, _sites(draw, shape, batch, draw(counts)))
    numbers = {"name": draw(st.sampled_from(["a", ""])), "batch_size": batch, "kernel_size": draw(triples)}
    numbers["dilation"] = draw(st.one_of(st.just([1, 1, 1]), triples))
    if kind == "subm":
        return kind, sites, {**numbers, "spatial_shape": shape}
    return (
        kind,
        sites,
        {
            **numbers,
            "input_spatial_shape": shape,
            "output_spatial_shape": draw(triples),
            "stride": draw(triples),
            "padding": draw(st.one_of(st.just([0, 0, 0]), triples)),
            "transposed": False,
            "output_bound": draw(st.one_of(st.integers(-1, 1000), st.sampled_from(HUGE))),
        },
    )


@given(map_calls())
def test_maps(call: tuple[str, torch.Tensor, dict[str, Any]]) -> None:
    kind, sites, arguments = call

    def reference() -> Any:
        rows = _sites_of(sites)
        a = arguments
        if kind == "subm":
            return geometry.submanifold_map(
                rows, tuple(a["spatial_shape"]), tuple(a["kernel_size"]), tuple(a["dilation"])
            )
        numbers = (tuple(a[n]) for n in ("kernel_size", "stride", "padding", "dilation"))
        made, kernel_map = geometry.strided_map(rows, tuple(a["output_spatial_shape"]), *numbers)
        return made[:, [0, *range(5 - sites.shape[1], 4)]], kernel_map

    operator = OPS.subm_map if kind == "subm" else OPS.conv_map
    _refused_or(lambda: operator(sites, **arguments), reference)


@given(st.data())
def test_scatter_dense(data: st.DataObject) -> None:
    draw = data.draw
    shape, batch = draw(triples), draw(whole)
    array = _sites(draw, shape, batch, draw(counts))
    count = len(array) if draw(st.integers(0, 9)) else draw(counts)
    features = _tensor(draw, np.arange(count * 3, dtype=np.float32).reshape(count, 3))
    sites = _tensor(draw, array)

    def reference() -> Any:
        return numerics.scatter_dense(_as(features, np.float32), _sites_of(sites), batch, tuple(shape))

    _refused_or(
        lambda: OPS.scatter_dense(
            features, sites, name="d", format="zyx", batch_size=batch, spatial_shape=shape
        ),
        reference,
    )


@given(st.data())
def test_convolution(data: st.DataObject) -> None:
    draw = data.draw
    seed, inputs, outputs, channels = (
        draw(st.integers(0, 99)),
        draw(counts),
        draw(counts),
        draw(st.integers(0, 9)),
    )
    kernel = draw(st.lists(st.integers(0, 2), min_size=3, max_size=3))
    rng = np.random.default_rng(seed)
    array = rng.integers(-1, max(inputs, 1), (outputs, int(np.prod(kernel)))).astype(np.int32)
    if array.size and draw(st.integers(0, 4)) == 0:
        array.flat[draw(st.integers(0, array.size - 1))] = draw(
            st.sampled_from([-2, inputs, 2**31 - 1, -(2**31)])
        )
    x = _tensor(draw, rng.normal(size=(inputs, channels)).astype(np.float32))
    width = channels if draw(st.integers(0, 9)) else draw(st.integers(0, 9))
    out = draw(st.integers(0, 17))
    w = _tensor(draw, rng.normal(size=(out, *kernel, width)).astype(np.float32))
    b = draw(st.sampled_from([None, _tensor(draw, np.ones(out, np.float32))]))
    kernel_map = _tensor(draw, array)
    precision = draw(precisions)
    output = draw(st.sampled_from([precision, "fp16", "fp32"]))
    amax = draw(ranges)
    many = draw(st.one_of(st.just([3.0] * out), st.lists(ranges.filter(bool), max_size=18), st.none()))

    def reference() -> Any:
        operands = _as(x, np.float32), _as(w, np.float32), np.zeros(out) if b is None else _as(b, np.float32)
        if precision == "int8":
            half = [a.astype(np.float16) for a in operands[1:]]
            y = numerics.convolution_int8(
                operands[0], *half, _as(kernel_map, np.int32), amax, np.float32(many)
            )
        else:
            y = numerics.convolution_float64(*operands, _as(kernel_map, np.int32))
        return y.astype(np.float32)

    _refused_or(
        lambda: OPS.convolution(
            x, w, b, kernel_map, name="c", activation="None", precision=precision, output_precision=output,
            input_dynamic_range=amax, weight_dynamic_ranges=many,
        ),
        reference,
    )  # fmt: skip


@given(st.data())
def test_add_and_inverse_map(data: st.DataObject) -> None:
    draw = data.draw
    rows, columns = draw(counts), draw(st.integers(0, 18))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    a, b = (_tensor(draw, rng.normal(size=(rows, columns)).astype(np.float32)) for _ in range(2))
    precision, first, second = draw(precisions), draw(ranges), draw(ranges)

    def reference() -> Any:
        one, other = _as(a, np.float32), _as(b, np.float32)
        return numerics.add_int8(one, other, first, second) if precision == "int8" else one + other

    _refused_or(
        lambda: OPS.add(
            a, b, name="a", precision=precision, output_precision=draw(precisions),
            input0_dynamic_range=first, input1_dynamic_range=second,
        ),
        reference,
    )  # fmt: skip
    entries = rng.permutation(np.r_[np.arange(rows), np.full(rows + 1, -1)])[: rows * 2].reshape(-1, 2)
    kernel_map = _tensor(draw, entries.astype(np.int32))
    sites = _tensor(draw, np.zeros((draw(counts), 4), np.int32))

    def inverse() -> Any:
        found = np.full((len(sites), kernel_map.shape[1]), -1)
        for m, k in zip(*np.nonzero(_as(kernel_map, np.int64) >= 0), strict=True):
            found[int(kernel_map[m, k]), k] = m
        return found

    _refused_or(lambda: OPS.inverse_map(kernel_map, sites, name="i"), inverse)


@given(st.data())
@pytest.mark.filterwarnings("ignore")
def test_reshape_and_transpose(data: st.DataObject) -> None:
    draw = data.draw
    shape = draw(st.lists(st.integers(0, 4), max_size=5))
    x = torch.arange(int(np.prod(shape)), dtype=torch.float32).reshape(shape)
    dims = draw(st.lists(st.one_of(st.integers(-2, 8), st.sampled_from(HUGE)), max_size=5))
    _refused_or(lambda: OPS.reshape(x, name="r", dims=dims), lambda: x.numpy().reshape(dims))
    _refused_or(lambda: OPS.transpose(x, name="t", dims=dims), lambda: x.numpy().transpose(dims))
    _refused_or(
        lambda: OPS.input_sites(x, spatial_shape=dims), lambda: OPS.input_sites(x, spatial_shape=dims).numpy()
    )
