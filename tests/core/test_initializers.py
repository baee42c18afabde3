# SPDX-License-Identifier: Apache-2.0
"""Weights in every way in which ONNX may store them, and files whose names say two things."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper

from scn_fx import Engine, _core
from scn_fx.errors import OnnxError
from tests.oracle import builder, strategies
from tests.oracle.compare import assert_same_bits
from tests.oracle.frames import random_sites
from tests.oracle.network import run_network

GRID = (3, 4, 5)


def _file(weight: np.ndarray, bias: np.ndarray) -> ModelProto:
    data = builder.build_onnx(
        builder.convolution(
            "c", "features", "y", weight, bias, input_shape=GRID, output_shape=GRID, padding=(1, 1, 1),
            subm=True,
        )
    )  # fmt: skip
    return onnx.load_model_from_string(data)


def _weights(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Every kind of finite float16: normal, subnormal, largest, signed zeros."""
    rng = np.random.default_rng(seed)
    weight, bias = strategies.weights_for(rng, 5, (3, 3, 3), 4)
    weight = weight.astype(np.float16)
    weight.reshape(-1)[:6] = [6e-8, -6e-8, 65504.0, -65504.0, -0.0, 0.0]
    return weight, bias.astype(np.float16)


def _in_int32_data(t: TensorProto) -> None:
    bits = numpy_helper.to_array(t).view(np.uint16).ravel()
    t.ClearField("raw_data")
    t.int32_data.extend(bits.astype(int).tolist())


def _in_float32_bytes(t: TensorProto) -> None:
    t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(t).astype(np.float32), t.name))


def _in_float_data(t: TensorProto) -> None:
    values = numpy_helper.to_array(t)
    t.CopyFrom(
        helper.make_tensor(
            t.name, TensorProto.FLOAT, values.shape, values.astype(np.float32).ravel().tolist()
        )
    )


WAYS = [_in_int32_data, _in_float32_bytes, _in_float_data]


@pytest.mark.parametrize("store", WAYS)
@pytest.mark.parametrize("which", [(0,), (1,), (0, 1)])
@given(seed=strategies.seeds)
def test_the_way_of_storing_changes_no_bit(
    store: Callable[[TensorProto], None], which: tuple[int, ...], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    model = _file(*_weights(seed))
    expected_of = model.SerializeToString()
    for number in which:
        store(model.graph.initializer[number])
    onnx.checker.check_tensor(model.graph.initializer[which[0]])
    sites = random_sites(rng, 20, GRID)
    features = (rng.normal(size=(len(sites), 4)) * 0.1).astype(np.float16)
    got, _ = Engine(model.SerializeToString(), precision="fp32")(features, sites)
    assert_same_bits(got, Engine(expected_of, precision="fp32")(features, sites)[0])
    np.testing.assert_allclose(
        got, run_network(expected_of, features, sites, 1, precision="fp32").outputs[0].values, 1e-4, 1e-4
    )


def _refused(change: Callable[[TensorProto], None], message: str) -> None:
    model = _file(*_weights())
    change(model.graph.initializer[0])
    with pytest.raises(OnnxError, match=f"SparseConvolution 'c': its weight.*{message}"):
        Engine(model.SerializeToString())


@given(st.one_of(st.integers(-(2**31), -1), st.integers(65536, 2**31 - 1)))
def test_numbers_that_are_no_float16_bits(bits: int) -> None:
    def change(t: TensorProto) -> None:
        _in_int32_data(t)
        t.int32_data[7] = bits

    _refused(change, f"holds {bits} in int32_data; the bits of a float16 lie in 0 to 65535")


@pytest.mark.parametrize("store", WAYS)
@pytest.mark.parametrize("change", ["longer", "shorter", "none"])
def test_another_number_of_values(store: Callable[[TensorProto], None], change: str) -> None:
    def damage(t: TensorProto) -> None:
        store(t)
        for name in ("int32_data", "float_data"):
            values = list(getattr(t, name))
            t.ClearField(name)
            getattr(t, name).extend({"longer": [*values, 0], "shorter": values[1:], "none": []}[change])
            if not values:
                t.ClearField(name)
        raw = t.raw_data
        t.raw_data = {"longer": raw + b"\0\0\0\0", "shorter": raw[2:], "none": b""}[change] if raw else b""

    _refused(damage, r"\[5, 3, 3, 3, 4\] needs \d+ (bytes|entries) of \w+, the file has \d+")


def test_values_that_are_there_twice() -> None:
    def change(t: TensorProto) -> None:
        raw = t.raw_data
        _in_int32_data(t)
        t.raw_data = raw

    _refused(change, "stored twice")


@pytest.mark.parametrize("value", [0.1, 1e-9, 65505.0, 1e30])
def test_float32_that_would_have_to_be_rounded(value: float) -> None:
    def change(t: TensorProto) -> None:
        values = numpy_helper.to_array(t).astype(np.float32).copy()
        values[1, 2, 0, 1, 3] = value
        t.CopyFrom(numpy_helper.from_array(values, t.name))

    _refused(change, "which float16 cannot hold exactly. Export the model through scn_fx.onnx_view")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("store", WAYS)
def test_weights_are_finite(value: float, store: Callable[[TensorProto], None]) -> None:
    def change(t: TensorProto) -> None:
        values = numpy_helper.to_array(t).copy()
        values[0, 0, 0, 0, 0] = value
        t.raw_data = values.tobytes()
        store(t)

    _refused(change, "NaN or infinity")


@pytest.mark.parametrize(
    ("kind", "name"), [(TensorProto.DOUBLE, "float64"), (TensorProto.BFLOAT16, "bfloat16")]
)
def test_other_types_are_named(kind: int, name: str) -> None:
    def change(t: TensorProto) -> None:
        t.data_type = kind

    _refused(change, f"must be float16.*the file has {name}")
    model = _file(*_weights())
    change(model.graph.initializer[0])
    assert _core.read_onnx(model.SerializeToString())["initializers"]["c.weight"]["dtype"] == name


def test_names_that_are_there_twice() -> None:
    model = _file(*_weights())
    model.graph.initializer.append(model.graph.initializer[0])
    with pytest.raises(OnnxError, match=r"two initializers named 'c\.weight'"):
        Engine(model.SerializeToString())
    model = _file(*_weights())
    model.graph.node[0].attribute.append(helper.make_attribute("stride", [2, 2, 2]))
    with pytest.raises(OnnxError, match="SparseConvolution 'c': attribute 'stride' is there twice"):
        Engine(model.SerializeToString())
