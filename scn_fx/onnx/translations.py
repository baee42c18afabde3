# SPDX-License-Identifier: Apache-2.0
"""Translations of the operators for the dynamo exporter (``torch.onnx.export(dynamo=True)``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import onnx_ir as ir
import torch
from onnxscript import evaluator, values

from scn_fx.errors import ExportError
from scn_fx.onnx.dialect import (
    DOMAIN,
    DOMAIN_VERSION,
    Attributes,
    Convolution,
    add_attributes,
    check_split,
    dims_attributes,
    scatter_attributes,
)
from scn_fx.onnx.metadata import metadata_entries

__all__ = ["translation_table"]

# An onnx_ir.Value. The exporter reads the annotations of a translation and stumbles over that class: it takes
# anything with a `dtype` attribute for a tensor type of that dtype.
Operand = Any


class _NamedNode(ir.Node):
    """A node that keeps its module path as name and drops the exporter's notes.

    The exporter renames every node after its torch.fx value once the translation has returned, and attaches a
    stack trace and a class hierarchy to each. Tools find layers by module path, so later names are ignored.
    """

    module_path: str | None = None

    @property
    def name(self) -> str | None:
        return self.module_path or super().name

    @name.setter
    def name(self, value: str | None) -> None:
        self.module_path = self.module_path or value

    @property
    def metadata_props(self) -> dict[str, str]:  # type: ignore[override]
        return {}  # a fresh one: what the exporter writes into it is dropped


def _recorder_nodes() -> list[ir.Node] | None:
    """The node list of the exporter's recorder, or None where a release of torch hides it."""
    found = getattr(evaluator.default(), "nodes", None)
    return found if isinstance(found, list) else None


def _emit(name: str, op_type: str, inputs: Sequence[Operand], attributes: Attributes) -> Operand:
    """Record one node of the dialect with the running exporter and return its output."""
    nodes = _recorder_nodes()
    if nodes is None:
        # The documented way; the exporter then chooses the name.
        return values.Opset(DOMAIN, DOMAIN_VERSION)[op_type](*inputs, **attributes)
    node = _NamedNode(
        DOMAIN,
        op_type,
        inputs,
        [ir.convenience.convert_attribute(key, value) for key, value in attributes.items()],
        version=DOMAIN_VERSION,
        name=name,
    )
    node.module_path = name
    nodes.append(node)
    return node.outputs[0]


def _nothing() -> Operand:
    """A value outside the graph, for what the dialect leaves implicit: indices and kernel maps.

    No translation reads it. Returning an input instead would let the exporter rename that input.
    """
    return ir.Value(name="implicit")


def _outputs(weight: Operand, name: str) -> int:
    shape = weight.shape
    if shape is None or not isinstance(shape[0], int):
        raise ExportError(f"Layer {name!r}: expected a weight of fixed shape, got {shape}.")
    return shape[0]


def _channels(value: Operand, name: str) -> int:
    shape = value.shape
    if shape is None or not isinstance(shape[1], int):
        raise ExportError(
            f"Layer {name!r}: expected a fixed number of channels, got features of shape {shape}."
        )
    return shape[1]


def _convolution(
    features: Operand, weight: Operand, bias: Operand, kernel_map: Operand, **arguments: Any
) -> Operand:
    convolution = Convolution(**arguments)
    name = convolution.name
    attributes = convolution.attributes(_channels(features, name), _outputs(weight, name))
    return _emit(name, "SparseConvolution", (features, weight, bias), attributes)


def _add(
    a: Operand,
    b: Operand,
    *,
    name: str,
    activation: str = "None",
    activation_name: str = "",
    precision: str = "fp32",
    output_precision: str = "fp32",
    input0_dynamic_range: float | None = None,
    input1_dynamic_range: float | None = None,
) -> Operand:
    check_split(name, activation)
    attributes = add_attributes(precision, output_precision, input0_dynamic_range, input1_dynamic_range)
    return _emit(name, "Add", (a, b), attributes)


def _relu(x: Operand, *, name: str) -> Operand:
    return _emit(name, "Relu", (x,), {})


def _scatter_dense(
    features: Operand,
    indices: Operand,
    *,
    name: str,
    format: str,
    batch_size: int,
    spatial_shape: Sequence[int],
) -> Operand:
    attributes = scatter_attributes(format, batch_size, _channels(features, name), spatial_shape)
    return _emit(name, "ScatterDense", (features,), attributes)


def _reshape(x: Operand, *, name: str, dims: Sequence[int]) -> Operand:
    return _emit(name, "Reshape", (x,), dims_attributes(name, dims))


def _transpose(x: Operand, *, name: str, dims: Sequence[int]) -> Operand:
    return _emit(name, "Transpose", (x,), dims_attributes(name, dims))


def _one_map(*operands: Operand, **arguments: Any) -> Operand:
    return _nothing()


def _sites_and_map(*operands: Operand, **arguments: Any) -> tuple[Operand, Operand]:
    return _nothing(), _nothing()


def translation_table(meta: Mapping[str, Any]) -> dict[Callable[..., Any], Callable[..., Any]]:
    """The ``custom_translation_table`` for a graph whose "scn_fx" metadata is `meta`."""
    entries = metadata_entries(meta)

    def input_sites(features: Operand, *, spatial_shape: Sequence[int] = ()) -> Operand:
        # The one translation that runs once in each export and sees a value that belongs to the graph.
        graph = features.graph
        if graph is not None:
            for key in [key for key in graph.metadata_props if key.startswith("pkg.torch.")]:
                del graph.metadata_props[key]  # the signature of the whole program: longer than the graph
            graph.metadata_props.update(entries)
        return _nothing()

    ops = torch.ops.scn_fx
    return {
        ops.convolution.default: _convolution,
        ops.add.default: _add,
        ops.relu.default: _relu,
        ops.scatter_dense.default: _scatter_dense,
        ops.reshape.default: _reshape,
        ops.transpose.default: _transpose,
        ops.subm_map.default: _one_map,
        ops.conv_map.default: _sites_and_map,
        ops.inverse_map.default: _one_map,
        ops.input_sites.default: input_sites,
    }
