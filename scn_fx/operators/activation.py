# SPDX-License-Identifier: Apache-2.0
"""The operator of each activation, for one that no convolution or addition absorbs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from scn_fx.operators.activations import Activation, Given
from scn_fx.operators.aten import AtenCall, AtenRule, Lowered
from scn_fx.operators.onnx_form import OnnxForm
from scn_fx.operators.spec import Kind, Operand, OperatorSpec, Sites

__all__ = ["activation_spec"]


def _rule(activation: Activation, parameter_of: Callable[[Given], float | None]) -> AtenRule:
    def rule(call: AtenCall) -> Lowered | str | None:
        parameter = parameter_of(call.argument)
        if parameter is None:
            return None
        x = call.argument("self")
        if call.on_dense_map(x):
            return "it acts on the dense map; on the features before dense() it gives the same"
        return Lowered((x,), activation.keywords(parameter))

    return rule


def activation_spec(activation: Activation) -> OperatorSpec:
    """The spec of the operator ``scn_fx::<activation.operator>``."""
    parameter = activation.parameter
    keyword = "" if parameter is None else f", float activation_parameter={parameter.default!r}"

    def attributes(layer: Any) -> dict[str, Any]:
        return {} if parameter is None else dict(activation.attributes(layer.activation_parameter))

    def arguments(found: Mapping[str, Any]) -> dict[str, Any]:
        if parameter is None:
            return {}
        return activation.keywords(found.get(parameter.attribute, parameter.default))

    return OperatorSpec(
        name=activation.operator,
        schema=f"(Tensor x, *, str name{keyword}) -> Tensor",
        operands=(Operand("x", Kind.FEATURES),),
        gives=(Kind.FEATURES,),
        sites=Sites.SAME,
        activation=activation,
        aten={name: _rule(activation, found) for name, found in activation.aten.items()},
        suffix=activation.operator,
        modules=activation.modules,
        onnx=OnnxForm(
            op_type=activation.onnx_type,
            doc=activation.doc,
            attributes=attributes,
            arguments=arguments,
            types={} if parameter is None else {parameter.attribute: "f"},
            dialects=activation.node_in,
        ),
    )
