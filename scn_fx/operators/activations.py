# SPDX-License-Identifier: Apache-2.0
"""The activations: one entry each says all that Python knows of it.

An activation is done by the convolution or addition before it (`activation`, `activation_parameter`), or by
an operator of its own, which is made from the entry here. It takes one number at most.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from scn_fx.operators.dialects import DIALECTS

if TYPE_CHECKING:
    import torch

__all__ = [
    "ACTIVATIONS",
    "NO_ACTIVATION",
    "Activation",
    "Parameter",
    "activation_of_spconv",
    "real_activations",
]

Given = Callable[[str], Any]
"""The value of an argument of an aten call, by its name in the schema."""

NO_ACTIVATION = "None"
"""The name of doing nothing, as files have it."""


@dataclass(frozen=True)
class Parameter:
    """The number that an activation takes.

    Attributes:
        name: in torch.
        default: where a call does not say it.
        attribute: in files, beside `activation` and at the activation's own node.
    """

    name: str
    default: float
    attribute: str


@dataclass(frozen=True, kw_only=True)
class Activation:
    """One activation.

    Attributes:
        name: in graphs and files: "ReLU". spconv's `act_type` has the same names but for "None_".
        operator: name of its own operator, and suffix of names: "relu"; empty for doing nothing.
        onnx_type: ONNX type of its own node.
        doc: the formula, for that node's schema.
        compute: float tensor and parameter to a tensor of the same shape and dtype; NaN stays NaN.
        gradient: gradient behind it, its result and the parameter to the gradient before it.
        parameter: the number that it takes, if any.
        aten: by name of an aten operator, which of its calls are this activation: the parameter, or None.
        modules: classes of modules that are this activation.
        rectifies: whether it is max(x, 0).
        homogeneous: whether positive factors pass through it.
        attribute_in, node_in: dialects that hold it as an attribute of a convolution, and as a node.
    """

    name: str
    compute: Callable[[torch.Tensor, float], torch.Tensor]
    gradient: Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor]
    operator: str = ""
    onnx_type: str = ""
    doc: str = ""
    parameter: Parameter | None = None
    aten: Mapping[str, Callable[[Given], float | None]] = field(default_factory=lambda: MappingProxyType({}))
    modules: tuple[str, ...] = ()
    rectifies: bool = False
    homogeneous: bool = False
    attribute_in: frozenset[str] = frozenset()
    node_in: frozenset[str] = frozenset()

    def keywords(self, parameter: float) -> dict[str, Any]:
        """The keyword argument of an operator for the parameter; none where there is none."""
        return {} if self.parameter is None else {"activation_parameter": parameter}

    def attributes(self, parameter: float) -> dict[str, float]:
        """The same in a file."""
        return {} if self.parameter is None else {self.parameter.attribute: float(parameter)}


def _is(value: Any, number: float) -> bool:
    return isinstance(value, int | float) and value == number


def _where(condition: bool, parameter: float = 0.0) -> float | None:
    return parameter if condition else None


def _clamp(given: Given) -> float | None:
    return _where(_is(given("min"), 0) and (given("max") is None or _is(given("max"), math.inf)))


def _nothing(x: torch.Tensor, parameter: float) -> torch.Tensor:
    return x


def _same(grad: torch.Tensor, output: torch.Tensor, parameter: float) -> torch.Tensor:
    return grad


def _relu(x: torch.Tensor, parameter: float) -> torch.Tensor:
    """NaN stays NaN, and -0 becomes +0 (which torch.relu leaves)."""
    return x.masked_fill(x <= 0, 0.0)


def _relu_gradient(grad: torch.Tensor, output: torch.Tensor, parameter: float) -> torch.Tensor:
    """Zero where the result is, as torch has it; NaN passes."""
    import torch

    return torch.ops.aten.threshold_backward(grad, output, 0)


_ALL = (
    Activation(name=NO_ACTIVATION, compute=_nothing, gradient=_same, homogeneous=True, attribute_in=DIALECTS),
    Activation(
        name="ReLU",
        operator="relu",
        onnx_type="Relu",
        doc="max(x, 0).",
        compute=_relu,
        gradient=_relu_gradient,
        aten={
            "relu": lambda given: 0.0,
            "clamp": _clamp,
            "clip": _clamp,
            "clamp_min": lambda given: _where(_is(given("min"), 0)),
            "hardtanh": lambda given: _where(_is(given("min_val"), 0) and _is(given("max_val"), math.inf)),
            "leaky_relu": lambda given: _where(_is(given("negative_slope"), 0)),
            "threshold": lambda given: _where(_is(given("threshold"), 0) and _is(given("value"), 0)),
        },
        modules=("ReLU", "SparseReLU"),
        rectifies=True,
        homogeneous=True,
        attribute_in=DIALECTS,
        node_in=DIALECTS,
    ),
)

ACTIVATIONS: Mapping[str, Activation] = MappingProxyType({each.name: each for each in _ALL})
"""By name. Of several that an aten call could be, the first counts: leaky_relu(x, 0) is a ReLU."""


def real_activations() -> tuple[Activation, ...]:
    """All but doing nothing."""
    return tuple(each for each in ACTIVATIONS.values() if each.operator)


def activation_of_spconv(act_type: str) -> Activation | None:
    """The activation that spconv calls `act_type`, or None."""
    return ACTIVATIONS.get(NO_ACTIVATION if act_type == "None_" else act_type)
