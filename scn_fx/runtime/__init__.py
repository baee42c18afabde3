# SPDX-License-Identifier: Apache-2.0
"""Running exported networks: the engine, and its comparison with the captured graph.

The engine and the comparison of arrays need numpy alone; `compare` runs a captured graph and so needs torch.
"""

from scn_fx.runtime.comparison import compare
from scn_fx.runtime.difference import ArrayDifference, align_sites, compare_arrays
from scn_fx.runtime.engine import Engine, NodeTrace
from scn_fx.runtime.limits import Limits, default_limits
from scn_fx.runtime.plans import save_plan
from scn_fx.runtime.report import Comparison, NodeComparison

__all__ = [
    "ArrayDifference",
    "Comparison",
    "Engine",
    "Limits",
    "NodeComparison",
    "NodeTrace",
    "align_sites",
    "compare",
    "compare_arrays",
    "default_limits",
    "save_plan",
]
