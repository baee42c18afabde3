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

from scn_fx.operators.dialects import DIALECTS, SCN_FX

if TYPE_CHECKING:
    import torch

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

Before = Callable[[], "torch.Tensor"]
"""Gives the argument of an activation whose result is known."""

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
        gradient: gradient behind it, its result, a function that gives its argument (by computing it anew,
            so that it is asked only where the result does not tell enough) and the parameter to the
            gradient before it.
        parameter: the number that it takes, if any.
        aten: by name of an aten operator, which of its calls are this activation: the parameter, or None.
        modules: classes of modules that are this activation.
        rectifies: whether it is max(x, 0).
        homogeneous: whether positive factors pass through it.
        attribute_in, node_in: dialects that hold it as an attribute of a convolution, and as a node.
    """

    name: str
    compute: Callable[[torch.Tensor, float], torch.Tensor]
    gradient: Callable[[torch.Tensor, torch.Tensor, Before, float], torch.Tensor]
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


def _nothing(x: torch.Tensor, parameter: float) -> torch.Tensor:
    return x


def _same(grad: torch.Tensor, output: torch.Tensor, before: Before, parameter: float) -> torch.Tensor:
    return grad


def _relu(x: torch.Tensor, parameter: float) -> torch.Tensor:
    """NaN stays NaN, and -0 becomes +0 (which torch.relu leaves)."""
    return x.masked_fill(x <= 0, 0.0)


def _relu_gradient(
    grad: torch.Tensor, output: torch.Tensor, before: Before, parameter: float
) -> torch.Tensor:
    """Zero where the result is, as torch has it; NaN passes."""
    import torch

    return torch.ops.aten.threshold_backward(grad, output, 0)


def _leaky_relu(x: torch.Tensor, slope: float) -> torch.Tensor:
    import torch

    wide = x.float()
    return torch.where(wide > 0, wide, wide * slope).to(x.dtype)


def _leaky_relu_gradient(
    grad: torch.Tensor, output: torch.Tensor, before: Before, slope: float
) -> torch.Tensor:
    """The result has the sign of its argument unless the slope is negative."""
    import torch

    return torch.ops.aten.leaky_relu_backward(grad, output if slope > 0 else before(), slope, False)


def _exponential(z: torch.Tensor) -> torch.Tensor:
    """e^z in float32, the bits of csrc/core/activations-inl.h: no operation is fused with another."""
    import torch

    rounder = 12582912.0  # 1.5 · 2^23: leaves no bits for a fraction
    z = z.clamp(-86.0, 89.0)
    shifted = z * 1.4426950216293335 + rounder
    n = shifted - rounder
    r = z - n * 0.693359375
    r = r + n * 0.00021219444170128554
    power = torch.full_like(r, 1 / 5040)
    for factorial in (720, 120, 24, 6, 2, 1, 1):
        power = power * r + 1 / factorial
    half = ((shifted.view(torch.int32) + 126) << 23).view(torch.float32)
    return power * half * 2.0


def _silu(x: torch.Tensor, parameter: float) -> torch.Tensor:
    wide = x.float()
    return (wide / (_exponential(-wide) + 1.0)).to(x.dtype)


def _silu_gradient(
    grad: torch.Tensor, output: torch.Tensor, before: Before, parameter: float
) -> torch.Tensor:
    """It falls and rises: two arguments may have one result."""
    import torch

    return torch.ops.aten.silu_backward(grad, before().to(grad.dtype))


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
    Activation(
        name="LeakyReLU",
        operator="leaky_relu",
        onnx_type="LeakyRelu",
        doc="x, or alpha x where x is not positive.",
        compute=_leaky_relu,
        gradient=_leaky_relu_gradient,
        parameter=Parameter("negative_slope", 0.01, "alpha"),
        aten={"leaky_relu": lambda given: _finite(given("negative_slope"))},
        modules=("LeakyReLU",),
        homogeneous=True,
        attribute_in=frozenset({SCN_FX}),
        node_in=frozenset({SCN_FX}),
    ),
    Activation(
        name="SiLU",
        operator="silu",
        onnx_type="Silu",
        doc="x / (1 + exp(-x)).",
        compute=_silu,
        gradient=_silu_gradient,
        aten={"silu": lambda given: 0.0},
        modules=("SiLU",),
        attribute_in=frozenset({SCN_FX}),
        node_in=frozenset({SCN_FX}),
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
