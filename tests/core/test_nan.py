# SPDX-License-Identifier: Apache-2.0
"""NaN passes every activation and is never turned into a number; int8 cannot make one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scn_fx import Engine, _core
from scn_fx import ops as operators
from scn_fx.errors import ArgumentError, NonFiniteError, OnnxError, OverflowedError, ScnError
from tests.core.activations import EVERY, NONE, RELU, Named, relu_if
from tests.core.instruction_sets import SUPPORTED, instruction_set
from tests.oracle import builder, numerics
from tests.oracle.nan_networks import assert_same_values, nan_network

SPECIAL = np.float32([np.nan, -np.nan, np.inf, -np.inf, -0.0, 0.0, 1.5, -2.0])
every_isa = pytest.mark.parametrize("isa", SUPPORTED)


@every_isa
@pytest.mark.parametrize("channels", [1, 3, 16, 33])
def test_the_engine_keeps_nan_as_the_oracle_does(isa: str, channels: int) -> None:
    network = nan_network(channels)
    with instruction_set(isa):
        engine = Engine(network.onnx, precision="fp32", threads=1)
        results = engine(network.features, network.sites)
        traced = engine.trace(network.features, network.sites)
    dense, *sparse = (out.values for out in network.expected.outputs)
    assert_same_values(results[0], dense, "dense")
    for (values, _), expected in zip(results[1:], sparse, strict=True):
        assert_same_values(values, expected, "sparse")
    for node in traced:
        assert_same_values(node.values, network.expected.nodes[node.name].values, node.name)


@every_isa
def test_in_the_precisions_of_the_file_it_is_reported(isa: str) -> None:
    network = nan_network(3)
    with instruction_set(isa), pytest.raises(OverflowedError, match=r"grow0.*NaN or do not fit in float16"):
        Engine(network.onnx)(network.features, network.sites)


@every_isa
@pytest.mark.parametrize("activation", EVERY)
@pytest.mark.parametrize("columns", [1, 8, 16, 19])
def test_operators_in_float32(isa: str, activation: Named, columns: int) -> None:
    a = np.resize(SPECIAL, (8, columns)).copy()
    b = np.zeros_like(a)
    weight = np.eye(columns, dtype=np.float32).reshape(columns, 1, 1, 1, columns)
    rows = np.arange(8, dtype=np.int32)[:, None]
    with np.errstate(invalid="ignore"):
        product = numerics.convolution_float64(a, weight, np.zeros(columns), rows).astype(np.float32)
        expected = [numerics.activate(y, *activation) for y in (a + b, product)]
    with instruction_set(isa):
        added = _core.add(a, b, "fp32", "fp32", activation, 0.0, 0.0)
        multiplied = _core.convolution(a, weight, None, rows, "fp32", "fp32", activation, 0.0, None)
    assert_same_values(added, expected[0], "add")
    assert_same_values(multiplied, expected[1], "convolution")


@every_isa
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("relu", [False, True])
def test_operators_that_compute_in_int8_refuse_what_it_cannot_hold(
    isa: str, value: float, relu: bool
) -> None:
    a = np.zeros((3, 16), np.float32)
    b = a.copy()
    b[2, 5] = value
    weight, rows = np.ones((4, 1, 1, 1, 16), np.float32), np.arange(3, dtype=np.int32)[:, None]
    with instruction_set(isa):
        for first, second, which in ((a, b, "second"), (b, a, "first")):
            with pytest.raises(NonFiniteError, match=rf"node: its {which} input holds 1 values.*int8"):
                _core.add(first, second, "int8", "int8", relu_if(relu), 1.0, 1.0, name="node")
        with pytest.raises(NonFiniteError, match=r"node: its input holds 1 values.*int8"):
            _core.convolution(
                b, weight, None, rows, "int8", "int8", relu_if(relu), 1.0, np.ones(4, np.float32), name="node"
            )


@every_isa
def test_operators_that_round_to_float16_report_it(isa: str) -> None:
    a = np.full((2, 16), np.nan, np.float32)
    with instruction_set(isa), pytest.raises(OverflowedError, match=r"32 values are NaN or do not fit"):
        _core.add(a, a, "fp16", "fp16", RELU, 0.0, 0.0)


def _int8_file(input_range: float, weight_range: float) -> bytes:
    return builder.build_onnx(
        builder.convolution(
            "narrow", "features", "y", np.ones((2, 1, 1, 1, 2)), input_shape=(2, 2, 2),
            output_shape=(2, 2, 2), subm=True, precision="int8", output_precision="int8",
            input_range=input_range, weight_ranges=[1.0, weight_range],
        )
    )  # fmt: skip


@pytest.mark.parametrize("amax", [0.0, -1.0, np.nan, np.inf, 1e-40, 3.0e-37, 7.8e-31, 1.3e30, 3e38])
def test_ranges_whose_factor_is_no_number_are_refused(amax: float) -> None:
    for ranges in ((amax, 1.0), (1.0, amax)):
        with pytest.raises(OnnxError, match=r"narrow.*dynamic_range.*from 7\.9e-31 to 1\.27e\+30"):
            Engine(_int8_file(*ranges))
    with pytest.raises(ArgumentError, match=r"from 7\.9e-31 to 1\.27e\+30"):
        _core.add(np.ones((1, 2), np.float32), np.ones((1, 2), np.float32), "int8", "int8", NONE, amax, 1.0)


@pytest.mark.parametrize("ranges", [(1e30, 1e10), (1e-30, 1e-10), (1e-20, 1e-20)], ids=repr)
def test_ranges_whose_scale_is_no_number_are_refused(ranges: tuple[float, float]) -> None:
    """Sums of zero times an infinite scale would be NaN, and sums times a scale of zero all zero."""
    assert Engine(_int8_file(1e15, 1e15)) and Engine(_int8_file(1e-15, 1e-15))
    with pytest.raises(ScnError, match=r"narrow.*output channel 1.*cannot scale sums by"):
        Engine(_int8_file(*ranges))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_graphs_relu_and_its_gradient(dtype: torch.dtype) -> None:
    x = torch.from_numpy(SPECIAL.copy()).to(dtype).reshape(2, 4).requires_grad_()
    y = operators.relu(x, name="relu")
    expected = numerics.relu(x.detach().numpy())
    assert_same_values(y.detach(), expected, "relu")
    assert not np.signbit(y.detach().numpy()[expected == 0]).any()
    weights = torch.tensor([[1, 2, 3, np.inf], [np.inf, np.nan, 7, 8]], dtype=dtype)
    y.backward(weights)
    like = x.detach().clone().requires_grad_()
    torch.relu(like).backward(weights)
    assert like.grad is not None and x.grad is not None
    assert_same_values(x.grad, like.grad, "gradient")
