# SPDX-License-Identifier: Apache-2.0
"""The grids of a file's outputs."""

from __future__ import annotations

from typing import Any

import onnx
import pytest
from onnx import helper

from scn_fx.errors import OnnxError
from scn_fx.runtime.output_shapes import output_shapes


def _node(kind: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs, [output], domain="spconv", **attributes)


def _file(*nodes: onnx.NodeProto, outputs: tuple[str, ...]) -> bytes:
    value = onnx.TensorProto.FLOAT16
    values = [helper.make_tensor_value_info(name, value, None) for name in ("features", *outputs)]
    graph = helper.make_graph(nodes, "scn", values[:1], values[1:])
    return helper.make_model(graph).SerializeToString()


CONVOLUTION = _node("SparseConvolution", ["features"], "a", output_spatial_shape=[3, 8, 9])


def test_what_makes_no_sites_keeps_those_of_its_input() -> None:
    file = _file(
        CONVOLUTION,
        _node("Add", ["a", "a"], "sum"),
        _node("Relu", ["sum"], "r"),
        _node("ScatterDense", ["r"], "d"),
        _node("Reshape", ["d"], "map"),
        outputs=("r", "map", "a"),
    )
    assert output_shapes(file) == ((3, 8, 9), None, (3, 8, 9))


def test_a_file_that_does_not_say() -> None:
    file = _file(_node("SparseConvolution", ["features"], "a"), outputs=("a",))
    with pytest.raises(OnnxError, match="No node before the output a says its grid"):
        output_shapes(file)
