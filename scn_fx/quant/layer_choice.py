# SPDX-License-Identifier: Apache-2.0
"""Which layers of a calibrated graph an improvement is to work on."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from scn_fx.errors import CalibrationError
from scn_fx.quant.ranges import quantizable, read_ranges

if TYPE_CHECKING:
    from torch.fx import GraphModule

__all__ = ["int8_convolutions"]


def int8_convolutions(graph: GraphModule, patterns: Sequence[str] | str = "*") -> list[str]:
    """Names of the int8 convolutions that match one of the shell-style `patterns`, in topological order.

    Raises CalibrationError for a graph without int8 convolutions, and for a pattern that matches none.
    """
    found = [
        layer.name
        for layer in quantizable(graph)
        if layer.spec.weighted and layer.precision == "int8" and read_ranges(layer) is not None
    ]
    if not found:
        raise CalibrationError(
            "The graph has no int8 convolution with ranges. Calibrate it first (quant.calibrate, "
            "quant.load_cache), and leave its precision int8 (quant.set_precision)."
        )
    wanted = [patterns] if isinstance(patterns, str) else list(patterns)
    for pattern in wanted:
        if not any(fnmatchcase(name, pattern) for name in found):
            raise CalibrationError(
                f"The layer pattern {pattern!r} matches none of the int8 convolutions: {', '.join(found)}."
            )
    return [name for name in found if any(fnmatchcase(name, pattern) for pattern in wanted)]
