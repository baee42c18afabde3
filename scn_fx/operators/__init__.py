# SPDX-License-Identifier: Apache-2.0
"""The table of operators and that of activations: the one place that says what an operator is.

A file for each family of operators holds their `OperatorSpec`s, `table` lists them, `activations` has an
entry for each activation. The kernels are in `scn_fx.ops`. Nothing here imports torch.
"""

from __future__ import annotations

from scn_fx.operators.activations import ACTIVATIONS, NO_ACTIVATION, Activation, Parameter
from scn_fx.operators.spec import Kind, MapRule, MapSide, Operand, OperatorSpec, Range, Sites
from scn_fx.operators.table import OPERATORS

__all__ = [
    "ACTIVATIONS",
    "NO_ACTIVATION",
    "OPERATORS",
    "Activation",
    "Kind",
    "MapRule",
    "MapSide",
    "Operand",
    "OperatorSpec",
    "Parameter",
    "Range",
    "Sites",
]
