# SPDX-License-Identifier: Apache-2.0
"""The custom operators of scn-fx, namespace ``torch.ops.scn_fx``; importing this package registers them.

One module per family. Each operator has an explicit schema, a CPU kernel (the engine's own, from
``scn_fx._core``), a fake kernel for tracing and, where training needs it, an autograd formula in float32.
"""

from __future__ import annotations

from scn_fx.ops.add import add
from scn_fx.ops.convolution import convolution
from scn_fx.ops.dense import reshape, scatter_dense, transpose
from scn_fx.ops.input_sites import input_sites
from scn_fx.ops.kernel_maps import conv_map, inverse_map, subm_map
from scn_fx.ops.relu import relu

__all__ = [
    "add",
    "conv_map",
    "convolution",
    "input_sites",
    "inverse_map",
    "relu",
    "reshape",
    "scatter_dense",
    "subm_map",
    "transpose",
]
