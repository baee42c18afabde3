# SPDX-License-Identifier: Apache-2.0
"""torch.fx passes from an exported program to the fused graph, one rule a file.

Order matters: in-place operators must be gone before values are replaced, constants before BatchNorms are
folded, and BatchNorms before ReLUs are fused.
"""

from __future__ import annotations

from scn_fx.passes.base import GraphPass, PassResult, run_passes
from scn_fx.passes.clean import Clean
from scn_fx.passes.dead_code import DeadCode
from scn_fx.passes.fold_batch_norm import FoldBatchNorm
from scn_fx.passes.fold_constants import FoldConstants
from scn_fx.passes.functionalise import Functionalise
from scn_fx.passes.fuse_relu import FuseRelu
from scn_fx.passes.lower_elementwise import LowerElementwise
from scn_fx.passes.lower_layout import LowerLayout
from scn_fx.passes.name_nodes import NameNodes
from scn_fx.passes.verify import Verify

__all__ = [
    "Clean",
    "DeadCode",
    "FoldBatchNorm",
    "FoldConstants",
    "Functionalise",
    "FuseRelu",
    "GraphPass",
    "LowerElementwise",
    "LowerLayout",
    "NameNodes",
    "PassResult",
    "Verify",
    "fusing_passes",
    "run_passes",
]


def fusing_passes() -> list[GraphPass]:
    """The passes that `scn_fx.capture` runs, in order."""
    return [
        Functionalise(),
        Clean(),
        DeadCode(),
        FoldConstants(),
        FoldBatchNorm(),
        LowerElementwise(),
        FuseRelu(),
        LowerLayout(),
        NameNodes(),
        DeadCode(),
        Verify(),
    ]
