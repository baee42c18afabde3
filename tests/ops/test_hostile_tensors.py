# SPDX-License-Identifier: Apache-2.0
"""Tensors and arguments that do not fit: the same errors from real kernels, on fake tensors and in export."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode

import scn_fx.ops  # noqa: F401  (registers the operators)
from scn_fx.errors import ArgumentError, CalibrationError, MemoryLimitError, ScnError, SiteError
from tests.ops.samples import (
    BATCH,
    GRID,
    conv_arguments,
    random_sites,
    random_tensor,
    strided_arguments,
    subm_arguments,
)

OPS = torch.ops.scn_fx
SUBM = subm_arguments()
DOWN = strided_arguments()
DENSE = {"name": "dense", "format": "zyx", "batch_size": BATCH, "spatial_shape": list(GRID)}
INT8 = {"precision": "int8", "output_precision": "fp16", "input_dynamic_range": 1.0}

Call = Callable[..., Any]


def _tensors() -> dict[str, Tensor]:
    return {
        "x": random_tensor(40, 6),
        "sites": random_sites(),
        "weight": random_tensor(8, 3, 3, 3, 6, seed=2),
        "kernel_map": OPS.subm_map(random_sites(), **SUBM),
    }


def _conv(t: dict[str, Tensor], **changes: Any) -> Tensor:
    return OPS.convolution(t["x"], t["weight"], t.get("bias"), t["kernel_map"], **conv_arguments(**changes))


# What is known without values, so that it is refused when the graph is made, too.
KNOWN: dict[str, tuple[Call, type[ScnError], str]] = {
    "batch of none": (
        lambda t: OPS.subm_map(t["sites"], **{**SUBM, "batch_size": 0}),
        ArgumentError,
        "'conv': batch_size must be 1 to 2147483647, got 0",
    ),
    "negative batch": (
        lambda t: OPS.scatter_dense(t["x"], t["sites"], **{**DENSE, "batch_size": -1}),
        ArgumentError,
        "'dense': batch_size must be 1 to 2147483647, got -1",
    ),
    "batch beyond int32": (
        lambda t: OPS.conv_map(t["sites"], **{**DOWN, "batch_size": 2**32 + 1}),
        ArgumentError,
        "'down': batch_size .*got 4294967297",
    ),
    "grid beyond int32": (
        lambda t: OPS.subm_map(t["sites"], **{**SUBM, "spatial_shape": [4, 4, 2**32]}),
        SiteError,
        r"'conv': spatial shape must be three integers from 1 to 1073741824.*got \[4, 4, 4294967296\]",
    ),
    "flat grid": (
        lambda t: OPS.scatter_dense(t["x"], t["sites"], **{**DENSE, "spatial_shape": [4, 6]}),
        SiteError,
        r"'dense': spatial_shape must be three integers.*got \[4, 6\]",
    ),
    "dense map beyond 63 bits": (
        lambda t: OPS.scatter_dense(t["x"], t["sites"], **{**DENSE, "spatial_shape": [2**30, 2**30, 4]}),
        MemoryLimitError,
        "'dense': a dense map .*63 bits",
    ),
    "kernel of too many offsets": (
        lambda t: OPS.subm_map(t["sites"], **{**SUBM, "kernel_size": [2**16, 2**16, 1]}),
        SiteError,
        "'conv': kernel_size .*4294967296 offsets",
    ),
    "kernel of none": (
        lambda t: OPS.subm_map(t["sites"], **{**SUBM, "kernel_size": [3, 0, 3]}),
        SiteError,
        r"'conv': kernel_size must be three integers from 1.*\[3, 0, 3\]",
    ),
    "dilation of none": (
        lambda t: OPS.subm_map(t["sites"], **{**SUBM, "dilation": [0, 1, 1]}),
        SiteError,
        "'conv': dilation must be",
    ),
    "stride of none": (
        lambda t: OPS.conv_map(t["sites"], **{**DOWN, "stride": [2, 0, 2]}),
        SiteError,
        "'down': stride must be",
    ),
    "negative padding": (
        lambda t: OPS.conv_map(t["sites"], **{**DOWN, "padding": [1, -1, 1]}),
        SiteError,
        "'down': padding must be",
    ),
    "reach beyond int32": (
        lambda t: OPS.conv_map(t["sites"], **{**DOWN, "stride": [2, 2, 2**30]}),
        SiteError,
        "'down': .*stride .* reach further from a grid",
    ),
    "negative bound": (
        lambda t: OPS.conv_map(t["sites"], **{**DOWN, "output_bound": -5}),
        ArgumentError,
        "'down': output_bound must not be negative, got -5",
    ),
    "submanifold with a negative bound": (
        lambda t: OPS.subm_map(t["sites"], **{**SUBM, "output_bound": -1}),
        ArgumentError,
        "'conv': output_bound must not be negative, got -1",
    ),
    "inverse with a negative bound": (
        lambda t: OPS.inverse_map(t["kernel_map"], t["sites"], name="up", output_bound=-1),
        ArgumentError,
        "'up': output_bound must not be negative, got -1",
    ),
    "no channels": (
        lambda t: _conv({**t, "x": t["x"][:, :0], "weight": t["weight"][..., :0]}),
        SiteError,
        "'conv': features must have 1 to 1048576 channels, got 0",
    ),
    "no output channels": (
        lambda t: _conv({**t, "weight": t["weight"][:0]}),
        SiteError,
        "'conv': the weight's output must have 1 to 1048576 channels, got 0",
    ),
    "addition of no channels": (
        lambda t: OPS.add(t["x"][:, :0], t["x"][:, :0], name="add"),
        SiteError,
        "'add': the first operand must have 1 to",
    ),
    "map without columns": (
        lambda t: OPS.inverse_map(t["kernel_map"][:, :0], t["sites"], name="up"),
        SiteError,
        "'up': a kernel map has 1 to 32768 columns",
    ),
    "int64 map": (
        lambda t: _conv({**t, "kernel_map": t["kernel_map"].long()}),
        SiteError,
        "'conv': the kernel map must be int32",
    ),
    "int64 sites": (
        lambda t: OPS.scatter_dense(t["x"], t["sites"].long(), **DENSE),
        SiteError,
        r"'dense': indices must be int32.*indices\.int\(\)",
    ),
    "float64": (lambda t: _conv({**t, "x": t["x"].double()}), SiteError, r"'conv': features.*\.float\(\)"),
    "complex ReLU": (
        lambda t: OPS.relu(t["x"].to(torch.complex64), name="r"),
        SiteError,
        "'r': features must be float16, bfloat16 or float32, got .*complex64",
    ),
    "empty precision": (lambda t: _conv(t, precision=""), ScnError, "'conv': precision must be one of"),
    "empty format": (
        lambda t: OPS.scatter_dense(t["x"], t["sites"], **{**DENSE, "format": ""}),
        ScnError,
        "'dense': format must be one of",
    ),
    "small range": (
        lambda t: _conv(t, **{**INT8, "input_dynamic_range": 1e-31}, weight_dynamic_ranges=[1.0] * 8),
        CalibrationError,
        "'conv': input_dynamic_range must be a number from 7.9e-31",
    ),
    "large range": (
        lambda t: _conv(t, **INT8, weight_dynamic_ranges=[1.0] * 7 + [3e30]),
        CalibrationError,
        r"weight_dynamic_ranges\[7\] must be .* got 3e\+30",
    ),
    "product of ranges": (
        lambda t: _conv(t, **{**INT8, "input_dynamic_range": 1e20}, weight_dynamic_ranges=[1.0] * 7 + [1e20]),
        CalibrationError,
        "output channel 7, 1e\\+20, have a product",
    ),
    "range of an addition": (
        lambda t: OPS.add(
            t["x"],
            t["x"],
            name="add",
            precision="int8",
            output_precision="fp16",
            input0_dynamic_range=1.0,
            input1_dynamic_range=-1.0,
        ),
        CalibrationError,
        "'add': input1_dynamic_range must be",
    ),
    "two devices": (
        lambda t: _conv({**t, "weight": t["weight"].to("meta")}),
        ArgumentError,
        "'conv': all tensors must lie on one device, got cpu, meta, cpu",
    ),
    "scalar features": (lambda t: OPS.input_sites(t["x"][0, 0]), SiteError, r"Expected features \[N, C\]"),
    "placeholder grid": (
        lambda t: OPS.input_sites(t["x"], spatial_shape=[-1, -4, 60]),
        SiteError,
        "spatial_shape must be three integers",
    ),
}


@pytest.mark.parametrize("case", list(KNOWN))
def test_what_is_known_without_values_is_refused_everywhere(case: str) -> None:
    call, error, message = KNOWN[case]
    with pytest.raises(error, match=message) as eager:
        call(_tensors())
    with FakeTensorMode() as mode, pytest.raises(error) as traced:
        call({name: mode.from_tensor(tensor) for name, tensor in _tensors().items()})
    assert str(traced.value) == str(eager.value)


class _Scatter(torch.nn.Module):
    def __init__(self, batch_size: int) -> None:
        super().__init__()
        self.batch_size = batch_size

    def forward(self, x: Tensor, sites: Tensor) -> Tensor:
        return OPS.scatter_dense(x, sites, **{**DENSE, "batch_size": self.batch_size})


def test_export_and_compile_refuse_what_is_known() -> None:
    t = _tensors()
    with pytest.raises(ArgumentError, match="'dense': batch_size must be 1 to"):
        torch.export.export(_Scatter(-1), (t["x"], t["sites"]), strict=False)
    # the compiler wraps what kernels raise while it traces
    with pytest.raises(Exception, match="'dense': batch_size must be 1 to"):
        torch.compile(_Scatter(-1), backend="aot_eager", fullgraph=True)(t["x"], t["sites"])


def test_compiled_graphs_check_values() -> None:
    t = _tensors()
    run = torch.compile(_Scatter(1), backend="aot_eager", fullgraph=True)
    with pytest.raises(SiteError, match=r"dense: \d+ of 40 sites lie outside the grid.*batch < 1"):
        run(t["x"], t["sites"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.to_sparse(), r"expected dense tensors, got a sparse_coo one.*\.to_dense\(\)"),
        (lambda x: x.to_sparse_csr(), "got a sparse_csr one"),
        (lambda x: x.to_mkldnn(), "got a _mkldnn one"),
        (lambda x: torch.quantize_per_tensor(x, 0.1, 0, torch.qint8), r"got a qint8 one.*\.dequantize\(\)"),
        (lambda x: torch.nested.nested_tensor([x, x]), "got a nested one"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_tensors_of_other_kinds(change: Callable[[Tensor], Tensor], message: str) -> None:
    t = _tensors()
    x = change(t["x"])
    calls: list[Callable[[], Any]] = [
        lambda: _conv({**t, "x": x}),
        lambda: OPS.add(t["x"], x, name="conv"),
        lambda: OPS.scatter_dense(x, t["sites"], **{**DENSE, "name": "conv"}),
        lambda: OPS.relu(x, name="conv"),
        lambda: OPS.reshape(x, name="conv", dims=[-1]),
        lambda: OPS.transpose(x, name="conv", dims=[1, 0]),
    ]
    for call in calls:
        with pytest.raises(ArgumentError, match=f"Layer 'conv': .*{message}"):
            call()


def test_a_tensor_whose_memory_is_gone() -> None:
    t = _tensors()
    t["x"].untyped_storage().resize_(0)
    with pytest.raises(ArgumentError, match=r"'conv': a tensor of shape \[40, 6\] has lost its memory"):
        _conv(t)


def test_meta_tensors_have_shapes_alone() -> None:
    t = {name: tensor.to("meta") for name, tensor in _tensors().items()}
    assert _conv(t).shape == (40, 8)
    with pytest.raises(ArgumentError, match=r"'down': how many sites .* depends on their coordinates"):
        OPS.conv_map(t["sites"], **DOWN)


def test_memory_is_counted_first() -> None:
    """More than any machine has."""
    far = torch.zeros((1, 4), dtype=torch.int32)
    with pytest.raises(MemoryLimitError, match=r"dense: its dense map would take \d+ bytes"):
        OPS.scatter_dense(random_tensor(1, 4), far, **{**DENSE, "spatial_shape": [2**14] * 3})


def test_operands_in_any_order_of_memory() -> None:
    t = _tensors()
    x = random_tensor(6, 40, seed=7).t()
    assert torch.equal(_conv({**t, "x": x}), _conv({**t, "x": x.contiguous()}))
    columns = t["sites"].t().contiguous().t()
    assert torch.equal(OPS.subm_map(columns, **SUBM), t["kernel_map"])
    imaginary = torch.view_as_complex(torch.stack([x, x], -1).contiguous()).conj().imag  # has a negative bit
    assert torch.equal(OPS.relu(imaginary, name="r"), (-x).relu())
    assert torch.equal(OPS.add(imaginary, x, name="a"), torch.zeros(40, 6))


@pytest.mark.parametrize("entry", [40, 2**31 - 1, -2, -(2**31)])
def test_maps_of_other_sites(entry: int) -> None:
    t = _tensors()
    t["kernel_map"][17, 3] = entry
    with pytest.raises(SiteError, match=f"conv: the kernel map reads input row {entry}, but there are 40"):
        _conv(t)
    t["x"].requires_grad_()
    with pytest.raises(SiteError):
        _conv(t).sum().backward()
    with pytest.raises(SiteError, match=f"up: the kernel map reads input row {entry}"):
        OPS.inverse_map(t["kernel_map"], t["sites"], name="up")


def test_a_map_that_has_no_inverse() -> None:
    twice = torch.tensor([[0], [0]], dtype=torch.int32)
    with pytest.raises(SiteError, match=r"up: 1 of 2 pairs .*no inverse"):
        OPS.inverse_map(twice, random_sites(), name="up")
