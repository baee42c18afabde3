# SPDX-License-Identifier: Apache-2.0
"""The strict reader accepts what the builder writes and refuses each thing libspconv would misread."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.oracle import builder
from tests.oracle.dialect import read_network

SHAPE = (4, 6, 6)


def _model() -> onnx.ModelProto:
    weight = np.ones((2, 1, 3, 3, 2), np.float16)
    conv = builder.convolution(
        "conv", "features", "y", weight, input_shape=SHAPE, output_shape=SHAPE, padding=(0, 1, 1), subm=True,
        precision="int8", output_precision="int8", input_range=1.0, weight_ranges=[1.0, 1.0],
    )  # fmt: skip
    add = builder.add(
        "add", "y", "features", "z", precision="int8", output_precision="fp16", ranges=(1.0, 2.0)
    )
    dense = builder.node(
        "ScatterDense", "dense", ["z"], "d",
        format="zyx", input_spatial_shape=list(SHAPE), output_shape=[1, 2, *SHAPE],
    )  # fmt: skip
    return onnx.load_model_from_string(builder.build_onnx(conv, add, dense))


def _set(node: int, name: str, value: object) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        target = model.graph.node[node]
        kept = [a for a in target.attribute if a.name != name]
        del target.attribute[:]
        target.attribute.extend(kept if value is None else [*kept, helper.make_attribute(name, value)])

    return change


def _tensor(number: int, **fields: object) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        for name, value in fields.items():
            setattr(model.graph.initializer[number], name, value)

    return change


def _second_input(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("indices", TensorProto.INT32, ["voxels", 4]))


def _spare_initialiser(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(helper.make_tensor("spare", TensorProto.FLOAT16, [1], b"\0\0", raw=True))


def _operator(model: onnx.ModelProto) -> None:
    model.graph.node[1].op_type = "Div"


def _operand(model: onnx.ModelProto) -> None:
    model.graph.node[1].input[0] = "nowhere"


def _twice(model: onnx.ModelProto) -> None:
    model.graph.node[1].name = "conv"


def test_accepts_what_the_builder_writes() -> None:
    network = read_network(_model().SerializeToString())
    assert [n.op_type for n in network.nodes] == ["SparseConvolution", "Add", "ScatterDense"]
    assert network.nodes[0].precision == "int8" and network.nodes[1].output_precision == "fp16"
    assert network.input == "features" and network.outputs == ("d",)


def test_ignores_domains_as_libspconv_does() -> None:
    model = _model()
    for node in model.graph.node:
        node.domain = "elsewhere"
    assert len(read_network(model.SerializeToString()).nodes) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_second_input, "2 graph inputs"),
        (_spare_initialiser, "without a reader"),
        (_operator, "Div is not of the dialect"),
        (_operand, "comes from no earlier node"),
        (_twice, "not unique"),
        (_set(0, "subm", 1.0), "subm is FLOAT, must be INT"),
        (_set(0, "stride", 1), "stride is INT, must be INTS"),
        (_set(0, "input_dynamic_range", 1), "input_dynamic_range is INT, must be FLOAT"),
        (_set(0, "weight_dynamic_ranges", [1, 1]), "weight_dynamic_ranges is INTS, must be FLOATS"),
        (_set(0, "weight_dynamic_ranges", [1.0]), "1 weight ranges"),
        (_set(0, "input_dynamic_range", 0.0), "needs one > 0"),
        (_set(0, "rulebook", None), "rulebook is missing"),
        (_set(0, "padding", [1, 1]), "has 2 entries"),
        (_set(0, "activation", "Mish"), "activation"),
        (_set(0, "activation", "Tanh"), "libspconv has no"),
        (_set(1, "precision", "fp32"), "precision is 'fp32'"),
        (_set(1, "input1_dynamic_range", None), "input1_dynamic_range is None"),
        (_tensor(0, data_type=TensorProto.FLOAT), "is not float16"),
        (_tensor(0, raw_data=b"12"), "2 bytes"),
        (_tensor(0, data_location=TensorProto.EXTERNAL), "another file"),
    ],
)
def test_refuses(change: Callable[[onnx.ModelProto], None], message: str) -> None:
    model = _model()
    change(model)
    with pytest.raises(AssertionError, match=message):
        read_network(model.SerializeToString())
