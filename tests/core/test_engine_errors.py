# SPDX-License-Identifier: Apache-2.0
"""Bad files and bad frames: the engine says which node or row, what it expected and what came."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from scn_fx import _core
from scn_fx.errors import BoundError, NonFiniteError, OnnxError, OverflowedError, ScnError, SiteError
from tests.oracle import builder
from tests.oracle.compare import assert_same_bits

SHAPE = (4, 6, 6)
SITES = np.array([[0, 0, 0, 0], [0, 1, 2, 3], [0, 3, 5, 5]], np.int32)
FEATURES = np.ones((3, 2), np.float16)


def _network(scale: float = 0.1, bound: int = 1000, add: str = "Add") -> bytes:
    weight = np.full((2, 3, 3, 3, 2), scale, np.float16)
    first = builder.convolution(
        "conv1.0", "features", "a", weight,
        input_shape=SHAPE, output_shape=SHAPE, padding=(1, 1, 1), subm=True,
    )  # fmt: skip
    total = builder.add("conv1.add", "a", "features", "b", op_type=add)
    down = builder.convolution(
        "conv2.0", "b", "c", weight, input_shape=SHAPE, output_shape=(2, 3, 3), stride=(2, 2, 2),
        padding=(1, 1, 1), output_bound=bound,
    )  # fmt: skip
    dense = builder.node(
        "ScatterDense", "dense", ["c"], "d",
        format="zyx", input_spatial_shape=[2, 3, 3], output_shape=[1, 2, 2, 3, 3],
    )  # fmt: skip
    return builder.build_onnx(first, total, down, dense)


def _changed(index: int, **fields: object) -> bytes:
    """The network with fields of one node changed."""
    model = onnx.load_model_from_string(_network())
    for name, value in fields.items():
        setattr(model.graph.node[index], name, value)
    return model.SerializeToString()


def _run(
    features: np.ndarray = FEATURES, sites: np.ndarray = SITES, batch_size: int = 1, **options: object
) -> list:
    return _core.Engine(_network(**options)).run(features, sites, batch_size)


def test_the_network_of_these_tests_runs() -> None:
    (dense,) = _run()
    assert dense.shape == (1, 2, 2, 3, 3) and np.count_nonzero(dense)


def test_quantadd_is_add() -> None:
    assert_same_bits(_run(add="QuantAdd")[0], _run(add="Add")[0])


@pytest.mark.parametrize(
    "data", [b"", b"not an ONNX file at all", b"\x00" * 64, _network()[:-400], _network()[:37]]
)
def test_files_that_are_no_onnx_models(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(data)
    for source in (data, str(path)):
        with pytest.raises(OnnxError):
            _core.Engine(source)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises((OnnxError, OSError), match=r"nowhere\.onnx"):
        _core.Engine(str(tmp_path / "nowhere.onnx"))


def test_foreign_operators_are_named() -> None:
    with pytest.raises(OnnxError, match=r"MatMul") as error:
        _core.Engine(_changed(1, op_type="MatMul"))
    assert "conv1.add" in str(error.value)


def test_a_second_graph_input_is_refused() -> None:
    model = onnx.load_model_from_string(_network())
    model.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT16, ["n", 2]))
    with pytest.raises(OnnxError, match=r"input"):
        _core.Engine(model.SerializeToString())


def test_a_weight_of_the_wrong_size_is_refused() -> None:
    model = onnx.load_model_from_string(_network())
    model.graph.initializer[0].raw_data = model.graph.initializer[0].raw_data[:-2]
    with pytest.raises(OnnxError, match=r"conv1\.0"):
        _core.Engine(model.SerializeToString())


def test_int8_without_ranges_is_refused() -> None:
    model = onnx.load_model_from_string(_network())
    model.graph.node[0].attribute.append(helper.make_attribute("precision", "int8"))
    with pytest.raises(ScnError, match=r"conv1\.0"):
        _core.Engine(model.SerializeToString())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_features_must_be_finite(value: float, dtype: type) -> None:
    features = FEATURES.astype(dtype)
    features[1, 1] = value
    with pytest.raises(NonFiniteError, match=r"1"):
        _run(features)


def test_float32_features_beyond_float16_are_refused() -> None:
    with pytest.raises((OverflowedError, NonFiniteError)):
        _run(np.full((3, 2), 1e6, np.float32))


@pytest.mark.parametrize(
    ("features", "sites", "message"),
    [
        (np.ones((3, 5), np.float16), SITES, r"5"),
        (np.ones((2, 2), np.float16), SITES, r"2 features.*3 indices"),
        (np.ones((3, 2), np.int32), SITES, r"float16"),
        (np.ones(3, np.float16), SITES, r"\[N, C\]"),
        (FEATURES, SITES.astype(np.int64), r"int32"),
        (FEATURES, SITES[:, :3].copy(), r"4"),
        (FEATURES, SITES + np.int32([0, 0, 1, 0]), r"\(0, 3, 6, 5\)"),
        (FEATURES, SITES - np.int32([0, 0, 1, 0]), r"\(0, 0, -1, 0\)"),
        (FEATURES, SITES + np.int32([1, 0, 0, 0]), r"batch"),
        (FEATURES, SITES[[0, 1, 1]], r"duplicate"),
    ],
)
def test_bad_frames(features: np.ndarray, sites: np.ndarray, message: str) -> None:
    with pytest.raises(SiteError, match=message):
        _run(features, sites)


def test_more_sites_than_the_bound_name_layer_count_and_bound() -> None:
    with pytest.raises(BoundError, match=r"conv2\.0.*\b6\b.*output_bound.*\b5\b"):
        _run(bound=5)
    assert _run(bound=6)


def test_float16_overflow_names_the_layer() -> None:
    with pytest.raises(OverflowedError, match=r"conv2\.0"):
        _run(np.full((3, 2), 2000, np.float16), scale=3.0)


def test_overflow_within_a_fused_step_names_the_layer() -> None:
    with pytest.raises(OverflowedError, match=r"conv1\.(0|add)"):
        _run(np.full((3, 2), 60000, np.float16), scale=1.0)


def test_an_engine_works_again_after_an_error() -> None:
    engine = _core.Engine(_network())
    (before,) = engine.run(FEATURES, SITES)
    for sites in (SITES[[0, 0, 1]], SITES + np.int32([0, 9, 0, 0])):
        with pytest.raises(SiteError):
            engine.run(FEATURES, sites)
    with pytest.raises(OverflowedError):
        engine.run(FEATURES * np.float16(60000), SITES[[1, 0, 2]])
    assert_same_bits(engine.run(FEATURES, SITES)[0], before)


def test_no_voxels_give_an_all_zero_map() -> None:
    (dense,) = _run(FEATURES[:0], SITES[:0])
    assert dense.shape == (1, 2, 2, 3, 3) and not dense.any()


@pytest.mark.parametrize("seed", range(4))
def test_damaged_files_are_refused_or_run(seed: int) -> None:
    """Whatever bytes are changed, lost or added: an error of ours, or a network that runs."""
    intact = _network()
    rng = np.random.default_rng(seed)
    refused = 0
    for _ in range(500):
        data = bytearray(intact)
        at, kind = int(rng.integers(len(data))), rng.integers(3)
        if kind == 0:
            data[at] = int(rng.integers(256))
        elif kind == 1:
            del data[at : at + int(rng.integers(1, 9))]
        else:
            data[at:at] = rng.bytes(int(rng.integers(1, 5)))
        try:
            _core.read_onnx(bytes(data))
            _core.Engine(bytes(data)).run(FEATURES, SITES, 1)
        except ScnError:
            refused += 1
    assert refused > 250


def test_names_that_are_no_text_are_refused() -> None:
    with pytest.raises(OnnxError, match="UTF-8"):
        _core.Engine(_network().replace(b"conv1.0", b"conv\xff.0"))
