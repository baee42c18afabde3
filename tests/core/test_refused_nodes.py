# SPDX-License-Identifier: Apache-2.0
"""Files whose nodes say what cannot be: each is refused by the node's name, with what was expected."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import ModelProto, helper

from scn_fx import Engine
from scn_fx.errors import ArgumentError, OnnxError
from tests.oracle import builder

SHAPE = (4, 6, 6)


def network() -> ModelProto:
    """Two convolutions, a dense map and its transpose."""
    weight = np.full((2, 3, 3, 3, 2), 0.1, np.float16)
    shapes = {"input_shape": SHAPE, "output_shape": SHAPE, "padding": (1, 1, 1), "subm": True}
    first = builder.convolution("a", "features", "av", weight, **shapes)
    second = builder.convolution("b", "av", "bv", weight, **shapes)
    dense = builder.node(
        "ScatterDense", "d", ["bv"], "dv",
        format="zyx", input_spatial_shape=list(SHAPE), output_shape=[1, 2, *SHAPE],
    )  # fmt: skip
    turned = builder.node("Transpose", "t", ["dv"], "tv", dims=[0, 1, 3, 2, 4])
    return onnx.load_model_from_string(builder.build_onnx(first, second, dense, turned))


def attribute(node: int, name: str, value: object) -> Callable[[ModelProto], None]:
    """Sets an attribute of a node."""

    def change(model: ModelProto) -> None:
        found = model.graph.node[node].attribute
        kept = [made for made in found if made.name != name]
        del found[:]
        found.extend([*kept, helper.make_attribute(name, value)])

    return change


def several(*changes: Callable[[ModelProto], None]) -> Callable[[ModelProto], None]:
    def change(model: ModelProto) -> None:
        for each in changes:
            each(model)

    return change


def without_bias(model: ModelProto) -> None:
    del model.graph.node[0].input[2:]


def empty_weight(model: ModelProto) -> None:
    model.graph.initializer[0].dims[0] = 0


def wider_weight(model: ModelProto) -> None:
    weight = model.graph.initializer[2]
    weight.dims[4], weight.raw_data = 4, weight.raw_data * 2


def longer_bias(model: ModelProto) -> None:
    bias = model.graph.initializer[1]
    bias.dims[0], bias.raw_data = 4, bias.raw_data * 2


def output_of_nothing(model: ModelProto) -> None:
    model.graph.output[0].name = "nowhere"


def two_results(model: ModelProto) -> None:
    model.graph.node[1].output.append("more")


def a_name_twice(model: ModelProto) -> None:
    model.graph.node[1].output[0] = "av"


def dense_operator_on_sites(model: ModelProto) -> None:
    model.graph.node[3].input[0] = "bv"


def without_version(model: ModelProto) -> None:
    model.ClearField("ir_version")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (without_bias, r"SparseConvolution 'a': its bias \(input 2\) is missing"),
        (empty_weight, "SparseConvolution 'a': its weight has impossible dimensions"),
        (wider_weight, "SparseConvolution 'b': its weight expects 4 input channels, 'av' has 2"),
        (longer_bias, r"SparseConvolution 'a': its bias must have shape \[2\]"),
        (attribute(0, "ndim", 2), "SparseConvolution 'a': only 3D convolutions"),
        (attribute(0, "transposed", 1), "SparseConvolution 'a': at most one of subm, inverse and transposed"),
        (
            several(
                attribute(0, "precision", "int8"),
                attribute(0, "input_dynamic_range", 1.0),
                attribute(0, "weight_dynamic_ranges", [1.0]),
            ),
            "SparseConvolution 'a': weight_dynamic_ranges needs one entry per output channel .*2.*has 1",
        ),
        (attribute(2, "format", "yxz"), "ScatterDense 'd': format must be 'zyx' or 'xyz'.*'yxz'"),
        (attribute(3, "dims", [0, 1, 1, 2, 3]), "Transpose 't': dims .* is not a permutation"),
        (output_of_nothing, "Output 'nowhere' is produced by no node"),
        (two_results, "SparseConvolution 'b': expected one output, the file has 2"),
        (a_name_twice, "SparseConvolution 'b': value 'av' is produced twice"),
        (dense_operator_on_sites, "Transpose 't': 'bv' is sparse, but the operator needs a dense map"),
        (without_version, "Not an ONNX model: it has no IR version"),
    ],
)
def test_a_node_that_cannot_be_is_named(change: Callable[[ModelProto], None], match: str) -> None:
    model = network()
    assert Engine(model.SerializeToString()) is not None
    change(model)
    with pytest.raises(OnnxError, match=match):
        Engine(model.SerializeToString())


def test_a_switch_with_another_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCN_FX_PRINT_KERNELS", "yes")
    with pytest.raises(ArgumentError, match="SCN_FX_PRINT_KERNELS must be '0' or '1', got 'yes'"):
        Engine(network().SerializeToString())
