# SPDX-License-Identifier: Apache-2.0
"""What spconv's pooling layers do while they are captured."""

from __future__ import annotations

from typing import Any

import torch

import scn_fx.ops  # noqa: F401 - registers the operators
from scn_fx.capture.convolution import check_batch_size, check_sites, new_map
from scn_fx.capture.packages import spconv
from scn_fx.capture.tracing import Tracing
from scn_fx.capture.unsupported import stand_in
from scn_fx.dimensions import DIMENSIONS, narrowed
from scn_fx.errors import CaptureError

__all__ = ["globally_pooled", "pooled"]

_MOST_MASKED = 128
"""Offsets up to which spconv takes its masked algorithm on a GPU."""


def pooled(tracing: Tracing, module: Any, tensor: Any, kind: str) -> Any:
    """What `module.forward` gives for a SparseConvTensor while it is captured, as a SparseConvTensor.

    Args:
        tracing: the capture in progress.
        module: the layer.
        tensor: the SparseConvTensor that it reads.
        kind: "max" or "mean".

    A maximum is that of the neighbours that there are, as spconv's masked algorithm has it. Its native one
    begins at zero: what lies below becomes zero. A build without CUDA has the native one alone, but networks
    were trained with the masked one, which is then taken, with a note.
    """
    try:
        check_sites(tracing, module, tensor)
        return _pooled(tracing, module, tensor, kind)
    except CaptureError as error:
        shape = list(tensor.spatial_shape)
        if not module.subm and module.ndim == len(shape):
            sizes = (module.kernel_size, module.stride, module.padding, module.dilation)
            shape = spconv().ops.get_conv_output_size(shape, *sizes)
        return stand_in(tensor, str(error), tensor.features.shape[1], shape, new_sites=not module.subm)


def _pooled(tracing: Tracing, module: Any, tensor: Any, kind: str) -> Any:
    name = tracing.layer_name(module)
    if tensor.find_indice_pair(module.indice_key) is not None:
        raise CaptureError(
            f"Layer {tracing.describe(module)} uses indice_key {module.indice_key!r}, which another layer "
            "has taken. A pooling layer needs a key of its own, or none."
        )
    kernel_map = new_map(tracing, module, tensor, name)
    features = torch.ops.scn_fx.pool.default(tensor.features, kernel_map.value, name=name, kind=kind)
    if kind == "max" and _begins_at_zero(tracing, module):
        features = torch.relu(features)
    result = tensor.shadow_copy().replace_feature(features)
    result.indices = kernel_map.out_indices
    if module.indice_key is not None:
        result.indice_dict = {**tensor.indice_dict, module.indice_key: kernel_map}
    result.spatial_shape = narrowed(kernel_map.geometry.output_spatial_shape, module.ndim)
    return result


def globally_pooled(tracing: Tracing, module: Any, tensor: Any) -> torch.Tensor:
    """What a SparseGlobalMaxPool or SparseGlobalAvgPool gives while it is captured: [batch size, channels].

    A batch entry without sites gives zeros. spconv's maximum fails there (torch.max of no rows), and its mean
    is NaN. That mean is the first channel's alone, [batch size]: spconv takes element 0 of it, as of what
    torch.max returns. The graph has the mean of every channel, with a note.
    """
    layer = f"Layer {tracing.describe(module)}"
    shape = list(tensor.spatial_shape)
    try:
        if len(shape) not in DIMENSIONS:
            raise CaptureError(
                f"{layer} reads a sparse tensor of {len(shape)} dimensions; it is supported for 1, 2 and 3. "
                "End the captured part before it."
            )
        check_batch_size(layer, tensor)
        made = torch.ops.scn_fx.global_pool.default(
            tensor.features,
            tensor.indices,
            name="",  # known to the naming pass, from the module that calls
            kind="mean" if module.is_mean else "max",
            batch_size=int(tensor.batch_size),
        )
    except CaptureError as error:
        stands = stand_in(tensor, str(error), tensor.features.shape[1], new_sites=False)
        return stands.features.amax(0, keepdim=True)
    if module.is_mean:
        tracing.notes.append(
            f"{tracing.describe(module)} gives the mean of every channel, [batch size, channels]; spconv's "
            "own SparseGlobalAvgPool gives that of the first channel alone, [batch size]."
        )
    return made


def _begins_at_zero(tracing: Tracing, module: Any) -> bool:
    """Whether a maximum is at least zero."""
    build = spconv()
    if module.algo != build.ConvAlgo.Native:
        return False
    volume = 1
    for size in module.kernel_size:
        volume *= int(size)
    if not build.pool.CPU_ONLY_BUILD or volume > _MOST_MASKED:
        return True
    tracing.notes.append(
        f"{tracing.describe(module)} takes the largest neighbour, as spconv does on a GPU; this build of "
        "spconv has an algorithm that makes negative results zero."
    )
    return False
