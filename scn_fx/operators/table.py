# SPDX-License-Identifier: Apache-2.0
"""The table of operators."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from scn_fx.operators.activation import activation_spec
from scn_fx.operators.activations import Activation, real_activations
from scn_fx.operators.add import ADD
from scn_fx.operators.affine import AFFINE
from scn_fx.operators.concat import CONCAT
from scn_fx.operators.convolution import CONVOLUTION
from scn_fx.operators.dense import RESHAPE, SCATTER_DENSE, TRANSPOSE
from scn_fx.operators.global_pool import GLOBAL_POOL
from scn_fx.operators.group_norm import GROUP_NORM
from scn_fx.operators.maps import CONV_MAP, INPUT_SITES, INVERSE_MAP, SUBM_MAP
from scn_fx.operators.multiply import MULTIPLY
from scn_fx.operators.onnx_form import OnnxForm
from scn_fx.operators.pool import POOL
from scn_fx.operators.spec import OperatorSpec
from scn_fx.operators.union import UNION, UNION_MAP

__all__ = ["OPERATORS", "activation_operator", "of_onnx_type", "onnx_forms"]

OPERATORS: Mapping[str, OperatorSpec] = MappingProxyType(
    {
        spec.name: spec
        for spec in (
            CONVOLUTION,
            ADD,
            MULTIPLY,
            AFFINE,
            CONCAT,
            GROUP_NORM,
            POOL,
            UNION,
            *map(activation_spec, real_activations()),
            GLOBAL_POOL,
            SCATTER_DENSE,
            RESHAPE,
            TRANSPOSE,
            SUBM_MAP,
            CONV_MAP,
            INVERSE_MAP,
            UNION_MAP,
            INPUT_SITES,
        )
    }
)
"""Every operator of graphs, by name."""


def activation_operator(activation: Activation) -> OperatorSpec:
    """The operator that does an activation and nothing else."""
    return OPERATORS[activation.operator]


def onnx_forms() -> Iterator[tuple[OperatorSpec, OnnxForm]]:
    """The operators that files have nodes for, and these."""
    for spec in OPERATORS.values():
        if spec.onnx is not None:
            yield spec, spec.onnx


def of_onnx_type(op_type: str) -> OperatorSpec | None:
    """The operator of a node of a file, or None."""
    return next((s for s, form in onnx_forms() if op_type in (form.op_type, *form.also_read)), None)
