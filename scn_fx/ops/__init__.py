# SPDX-License-Identifier: Apache-2.0
"""The custom operators of scn-fx, namespace ``torch.ops.scn_fx``; importing this package registers them.

One module per family. Each operator has the schema that `scn_fx.operators` says, kernels for the CPU and CUDA
(convolutions, additions, kernel maps and the dense map call the engine's own, from ``scn_fx._core``; what is
left is torch's), a fake kernel for tracing and, where training needs it, an autograd formula in float32.
"""

from __future__ import annotations

from scn_fx.ops import activations
from scn_fx.ops.add import add
from scn_fx.ops.affine import affine
from scn_fx.ops.concat import concat
from scn_fx.ops.convolution import convolution
from scn_fx.ops.dense import reshape, scatter_dense, transpose
from scn_fx.ops.global_pool import global_pool
from scn_fx.ops.group_norm import group_norm
from scn_fx.ops.input_sites import input_sites
from scn_fx.ops.kernel_maps import conv_map, inverse_map, subm_map
from scn_fx.ops.multiply import multiply
from scn_fx.ops.pool import pool
from scn_fx.ops.union import union, union_map

__all__ = [
    "add",
    "affine",
    "concat",
    "conv_map",
    "convolution",
    "global_pool",
    "group_norm",
    "input_sites",
    "inverse_map",
    "multiply",
    "pool",
    "reshape",
    "scatter_dense",
    "subm_map",
    "transpose",
    "union",
    "union_map",
]

__all__ += activations.OPERATORS
globals().update(activations.OPERATORS)  # an operator for each entry of the table of activations
