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
from typing import Any

from scn_fx.operators.activation_formulas import Before, Compute, Gradient, formulas, gradients
from scn_fx.operators.dialects import DIALECTS, SCN_FX

__all__ = [
    "ACTIVATIONS",
    "NO_ACTIVATION",
    "Activation",
    "Before",
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
        compute: float tensor and parameter to a tensor of the same shape and dtype; NaN stays NaN.
        gradient: gradient behind it, its result, a function that gives its argument (by computing it anew,
            so that it is asked only where the result does not tell enough) and the parameter to the
            gradient before it.
        operator: name of its own operator, and suffix of names: "relu"; empty for doing nothing.
        onnx_type: ONNX type of its own node.
        doc: the formula, for that node's schema.
        parameter: the number that it takes, if any.
        aten: by name of an aten operator, which of its calls are this activation: the parameter, or None.
        modules: classes of modules that are this activation.
        rectifies: whether it is max(x, 0).
        homogeneous: whether positive factors pass through it.
        attribute_in, node_in: dialects that hold it as an attribute of a convolution, and as a node.
    """

    name: str
    compute: Compute
    gradient: Gradient
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


def _finite(value: Any) -> float | None:
    """A number of float32, or None."""
    return float(value) if isinstance(value, int | float) and abs(value) < 2.0**128 else None


def _clamp(given: Given) -> float | None:
    return _where(_is(given("min"), 0) and (given("max") is None or _is(given("max"), math.inf)))


def _hardtanh(low: float, high: float) -> Callable[[Given], float | None]:
    return lambda given: _where(_is(given("min_val"), low) and _is(given("max_val"), high))


def _gelu(approximate: str) -> Callable[[Given], float | None]:
    return lambda given: _where(given("approximate") == approximate)


_OWN: Any = {"attribute_in": frozenset({SCN_FX}), "node_in": frozenset({SCN_FX})}


def _always(given: Given) -> float:
    return 0.0


_ALL = (
    Activation(
        name=NO_ACTIVATION,
        compute=formulas["None"],
        gradient=gradients["None"],
        homogeneous=True,
        attribute_in=DIALECTS,
    ),
    Activation(
        name="ReLU",
        compute=formulas["ReLU"],
        gradient=gradients["ReLU"],
        operator="relu",
        onnx_type="Relu",
        doc="max(x, 0).",
        aten={
            "relu": _always,
            "clamp": _clamp,
            "clip": _clamp,
            "clamp_min": lambda given: _where(_is(given("min"), 0)),
            "hardtanh": _hardtanh(0, math.inf),
            "leaky_relu": lambda given: _where(_is(given("negative_slope"), 0)),
            "threshold": lambda given: _where(_is(given("threshold"), 0) and _is(given("value"), 0)),
        },
        modules=("ReLU", "SparseReLU"),
        rectifies=True,
        homogeneous=True,
        attribute_in=DIALECTS,
        node_in=DIALECTS,
    ),
    Activation(
        name="LeakyReLU",
        compute=formulas["LeakyReLU"],
        gradient=gradients["LeakyReLU"],
        operator="leaky_relu",
        onnx_type="LeakyRelu",
        doc="x, or alpha x where x is not positive.",
        parameter=Parameter("negative_slope", 0.01, "alpha"),
        aten={"leaky_relu": lambda given: _finite(given("negative_slope"))},
        modules=("LeakyReLU",),
        homogeneous=True,
        **_OWN,
    ),
    Activation(
        name="SiLU",
        compute=formulas["SiLU"],
        gradient=gradients["SiLU"],
        operator="silu",
        onnx_type="Silu",
        doc="x / (1 + exp(-x)).",
        aten={"silu": _always},
        modules=("SiLU",),
        **_OWN,
    ),
    Activation(
        name="Sigmoid",
        compute=formulas["Sigmoid"],
        gradient=gradients["Sigmoid"],
        operator="sigmoid",
        onnx_type="Sigmoid",
        doc="1 / (1 + exp(-x)).",
        aten={"sigmoid": _always},
        modules=("Sigmoid",),
        **_OWN,
    ),
    Activation(
        name="Tanh",
        compute=formulas["Tanh"],
        gradient=gradients["Tanh"],
        operator="tanh",
        onnx_type="Tanh",
        doc="1 - 2 / (1 + exp(2 x)).",
        aten={"tanh": _always},
        modules=("Tanh",),
        **_OWN,
    ),
    Activation(
        name="GELU",
        compute=formulas["GELU"],
        gradient=gradients["GELU"],
        operator="gelu",
        onnx_type="Gelu",
        doc="x times the cumulative distribution function of the normal distribution.",
        aten={"gelu": _gelu("none")},
        modules=("GELU",),
        **_OWN,
    ),
    Activation(
        name="GELUTanh",
        compute=formulas["GELUTanh"],
        gradient=gradients["GELUTanh"],
        operator="gelu_tanh",
        onnx_type="GeluTanh",
        doc="The approximation of GELU by tanh.",
        aten={"gelu": _gelu("tanh")},
        modules=("GELU",),
        **_OWN,
    ),
    Activation(
        name="ReLU6",
        compute=formulas["ReLU6"],
        gradient=gradients["ReLU6"],
        operator="relu6",
        onnx_type="Relu6",
        doc="min(max(x, 0), 6).",
        aten={
            "relu6": _always,
            "hardtanh": _hardtanh(0, 6),
            "clamp": lambda given: _where(_is(given("min"), 0) and _is(given("max"), 6)),
        },
        modules=("ReLU6",),
        **_OWN,
    ),
    Activation(
        name="Hardswish",
        compute=formulas["Hardswish"],
        gradient=gradients["Hardswish"],
        operator="hardswish",
        onnx_type="HardSwish",
        doc="x min(max(x + 3, 0), 6) / 6.",
        aten={"hardswish": _always},
        modules=("Hardswish",),
        **_OWN,
    ),
    Activation(
        name="Hardsigmoid",
        compute=formulas["Hardsigmoid"],
        gradient=gradients["Hardsigmoid"],
        operator="hardsigmoid",
        onnx_type="HardSigmoid",
        doc="min(max(x + 3, 0), 6) / 6.",
        aten={"hardsigmoid": _always},
        modules=("Hardsigmoid",),
        **_OWN,
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
