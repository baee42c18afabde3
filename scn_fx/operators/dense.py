# SPDX-License-Identifier: Apache-2.0
"""The dense map and what rearranges it; their kernels are in `scn_fx.ops.dense`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from scn_fx.errors import ExportError
from scn_fx.operators.onnx_form import Attributes, OnnxForm
from scn_fx.operators.spec import GridRule, Kind, Operand, OperatorSpec, Sites

__all__ = ["RESHAPE", "SCATTER_DENSE", "TRANSPOSE"]


def _scatter_attributes(layer: Any) -> Attributes:
    grid = layer.spatial_shape
    shape = [layer.batch_size, layer.input_channels, *grid]
    return {"format": layer.format, "input_spatial_shape": grid, "output_shape": shape}


def _scatter_arguments(attributes: Mapping[str, Any]) -> dict[str, Any]:
    batch, _, *grid = attributes["output_shape"]
    return {"format": attributes.get("format", "zyx"), "batch_size": batch, "spatial_shape": grid}


SCATTER_DENSE = OperatorSpec(
    name="scatter_dense",
    schema=(
        "(Tensor features, Tensor indices, *, str name, str format, int batch_size, int[] spatial_shape) "
        "-> Tensor"
    ),
    operands=(Operand("features", Kind.FEATURES), Operand("indices", Kind.SITES)),
    gives=(Kind.DENSE,),
    sites=Sites.DENSE,
    grid=GridRule("spatial_shape", larger=True),  # padded for what follows: the sites lie in the low corner
    suffix="dense",
    modules=("ToDense",),
    onnx=OnnxForm(
        op_type="ScatterDense",
        doc="Write features to their sites in a dense map of zeros.",
        attributes=_scatter_attributes,
        arguments=_scatter_arguments,
        types={"format": "s", "input_spatial_shape": "ints", "output_shape": "ints"},
        shape=lambda operands, attributes: list(attributes["output_shape"]),
    ),
)


def _dims_attributes(layer: Any) -> Attributes:
    if not layer.dims:
        raise ExportError(f"Layer {layer.name!r}: expected at least one dimension in dims, got none.")
    return {"dims": layer.dims}


def _reshaped(operands: Sequence[Any], attributes: Mapping[str, Any]) -> Sequence[int]:
    shape: Sequence[int] = operands[0].new_empty(operands[0].shape).reshape(attributes["dims"]).shape
    return shape


def _transposed(operands: Sequence[Any], attributes: Mapping[str, Any]) -> Sequence[int]:
    shape: Sequence[int] = operands[0].permute(attributes["dims"]).shape
    return shape


def _layout(name: str, op_type: str, doc: str, shape: Any) -> OperatorSpec:
    return OperatorSpec(
        name=name,
        schema="(Tensor x, *, str name, int[] dims) -> Tensor",
        operands=(Operand("x", Kind.DENSE),),
        gives=(Kind.DENSE,),
        sites=Sites.DENSE,
        suffix=name,
        onnx=OnnxForm(
            op_type=op_type,
            doc=doc,
            attributes=_dims_attributes,
            arguments=lambda attributes: {"dims": attributes["dims"]},
            types={"dims": "ints"},
            shape=shape,
        ),
    )


RESHAPE = _layout("reshape", "Reshape", "Reshape to `dims`.", _reshaped)
TRANSPOSE = _layout("transpose", "Transpose", "Permute the axes into the order `dims`.", _transposed)
