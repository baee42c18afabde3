# SPDX-License-Identifier: Apache-2.0
"""torch.fx passes from an exported program to the fused graph, one pass a file.

Order matters: in-place operators must be gone before values are replaced and before dead code is looked for,
constants before BatchNorms are folded, and BatchNorms before activations are fused. A BatchNorm that alone
reads a convolution goes into it; all others are channel maps, which know activations and additions as layers.
What cannot be captured is only marked; `Verify` refuses what is still there at the end, so that a part
of the model which the chosen output does not need is no obstacle.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from scn_fx.operators.dialects import LIBSPCONV
from scn_fx.passes.base import GraphPass, PassResult, run_passes
from scn_fx.passes.complete_output import CompleteOutput
from scn_fx.passes.dead_code import DeadCode
from scn_fx.passes.drop_checks import DropChecks
from scn_fx.passes.drop_copies import DropCopies
from scn_fx.passes.entry_inputs import EntryInputs
from scn_fx.passes.fold_batch_norm import FoldBatchNorm
from scn_fx.passes.fold_constants import FoldConstants
from scn_fx.passes.functionalise import Functionalise
from scn_fx.passes.fuse_activation import FuseActivation
from scn_fx.passes.lower_channel_maps import LowerChannelMaps
from scn_fx.passes.lower_dense_sums import LowerDenseSums
from scn_fx.passes.lower_layout import LowerLayout
from scn_fx.passes.lower_merging import LowerMerging
from scn_fx.passes.lower_operators import LowerOperators
from scn_fx.passes.module_marks import ModuleMarks
from scn_fx.passes.name_nodes import NameNodes
from scn_fx.passes.verify import Verify

__all__ = [
    "CompleteOutput",
    "DeadCode",
    "DropChecks",
    "DropCopies",
    "EntryInputs",
    "FoldBatchNorm",
    "FoldConstants",
    "Functionalise",
    "FuseActivation",
    "GraphPass",
    "LowerChannelMaps",
    "LowerDenseSums",
    "LowerLayout",
    "LowerMerging",
    "LowerOperators",
    "ModuleMarks",
    "NameNodes",
    "PassResult",
    "Verify",
    "fusing_passes",
    "run_passes",
]


def fusing_passes(
    paths: Collection[str] = (), outputs: str = "", chosen: Sequence[str] = (), dialect: str = LIBSPCONV
) -> list[GraphPass]:
    """The passes that `scn_fx.capture` runs, in order.

    Args:
        paths: paths of all modules of the model, see `NameNodes`.
        outputs: the model's outputs in words, see `Verify`.
        chosen: those that the graph returns, as the user named them.
        dialect: what it lacks is written with other operators where that is possible.
    """
    return [
        Functionalise(),
        ModuleMarks(),
        DeadCode(),
        DropChecks(),
        DropCopies(),
        EntryInputs(),
        DeadCode(),
        FoldConstants(),
        FoldBatchNorm(),
        LowerMerging(),
        LowerDenseSums(),
        DeadCode(),
        LowerOperators(dialect),
        LowerChannelMaps(dialect),
        DeadCode(),
        CompleteOutput(),
        FuseActivation(),
        LowerLayout(),
        NameNodes(paths),
        DeadCode(),
        Verify(outputs, chosen),
    ]
