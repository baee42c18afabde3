# SPDX-License-Identifier: Apache-2.0
"""Modules around and inside a model that are not what capture takes: wrappers, scripts, other libraries."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import nn

from scn_fx.capture.spconv1 import is_convolution
from scn_fx.capture.tracing import Tracing
from scn_fx.errors import CaptureError

__all__ = ["is_sparse_convolution", "refuse_foreign", "unwrapped"]

_WRAPPERS = {  # class → attribute that holds the model
    "DataParallel": "module",
    "DistributedDataParallel": "module",
    "FullyShardedDataParallel": "module",
    "MMDataParallel": "module",
    "MMDistributedDataParallel": "module",
    "OptimizedModule": "_orig_mod",
}
_LIBRARIES = ("torchsparse", "MinkowskiEngine", "ocnn", "fvdb", "warpconvnet")
_SPCONV_CLASS = re.compile(
    r"^(SubM|Sparse|SparseInverse)Conv(Transpose)?[1-4]d$|^SparseConvTensor$|^Sparse(Max|Avg)Pool([1-4]d)?$"
)


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside wrappers for training on several devices and for torch.compile."""
    while True:
        inner = getattr(model, _WRAPPERS.get(type(model).__name__, ""), None)
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def is_sparse_convolution(value: object) -> str | None:
    """The library of a sparse layer or tensor that is not spconv 2.x's, or None.

    mmcv, mmdet3d and projects with a copy of spconv 1.x use its class names; others have their own packages.
    """
    for base in type(value).__mro__:
        package = base.__module__.partition(".")[0]
        if package == "spconv":
            return None
        if package in _LIBRARIES:
            return package
        if _SPCONV_CLASS.match(base.__name__) and not _derives_from_spconv(type(value)):
            return base.__module__
    return None


def _derives_from_spconv(cls: type) -> bool:
    return any(base.__module__.partition(".")[0] == "spconv" for base in cls.__mro__)


def refuse_foreign(tracing: Tracing, module: Any) -> None:
    """Raise CaptureError for a module whose forward torch.export cannot follow."""
    what = tracing.describe(module)
    if isinstance(module, torch.jit.ScriptModule):
        raise CaptureError(
            f"Module {what} is a TorchScript module, whose Python code is gone. Capture the model before "
            "torch.jit.script or torch.jit.trace."
        )
    attribute = _WRAPPERS.get(type(module).__name__)
    if attribute == "module" and hasattr(module, attribute) and tracing.path(module):
        raise CaptureError(
            f"Module {what} is a wrapper for training on several devices. Put the model inside it in its "
            f"place: model.{tracing.path(module)} = model.{tracing.path(module)}.{attribute}."
        )
    library = is_sparse_convolution(module)
    if library is not None and not is_convolution(module):
        raise CaptureError(
            f"Module {what} is a sparse layer of {library}; capture takes those of spconv 2.x. Build the "
            "model with spconv.pytorch (SubMConv3d, SparseConv3d, …); its weights are [out, kz, ky, kx, in], "
            "those of spconv 1.x and mmcv [kz, ky, kx, in, out]."
        )
