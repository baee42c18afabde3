# SPDX-License-Identifier: Apache-2.0
"""Redirect spconv to the operators of scn-fx for the time of one trace, and put everything back.

Four things change inside the context: `SparseConvolution.forward`, `SparseConvTensor.dense`, the setter of
`SparseConvTensor.features`, and one global forward-pre hook. Each asks first whether *this thread* is
tracing; other threads go on running their models as before.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.modules.module import register_module_forward_pre_hook

import scn_fx.ops  # noqa: F401 - registers the operators
from scn_fx.capture.convolution import convolve
from scn_fx.capture.packages import spconv
from scn_fx.capture.tracing import Tracing
from scn_fx.errors import CaptureError

__all__ = ["patched_attributes", "redirected"]

_lock = threading.RLock()
_thread = threading.local()

_SUPPORTED = frozenset(
    {
        "AddTable",
        "ConcatTable",
        "Identity",
        "RemoveGrid",
        "SparseBatchNorm",
        "SparseConv3d",
        "SparseConvTranspose3d",
        "SparseIdentity",
        "SparseInverseConv3d",
        "SparseReLU",
        "SparseSequential",
        "SparseSyncBatchNorm",
        "SubMConv3d",
        "ToDense",
    }
)
_INSTEAD = {
    "JoinTable": "Concatenation is not supported yet; choose an output before it.",
    "SparseMaxPool3d": "Pooling is not supported; use a strided SparseConv3d, or choose an output before it.",
    "SparseAvgPool3d": "Pooling is not supported; use a strided SparseConv3d, or choose an output before it.",
}


def patched_attributes() -> list[tuple[type, str]]:
    """The class attributes that `redirected` replaces and restores."""
    module = spconv()
    tensor = module.SparseConvTensor
    return [(module.conv.SparseConvolution, "forward"), (tensor, "dense"), (tensor, "features")]


@contextmanager
def redirected(tracing: Tracing) -> Iterator[None]:
    """Within the context, spconv layers called by this thread emit scn-fx operators.

    One capture at a time: others wait. On leaving, by an exception too, every attribute is the object it was.
    """
    with _lock:
        previous = getattr(_thread, "tracing", None)
        originals = [(owner, name, owner.__dict__[name]) for owner, name in patched_attributes()]
        replacements: list[Callable[[Any], Any]] = [_forward, _dense, _features]
        hook: Any = register_module_forward_pre_hook(_before_forward)
        _thread.tracing = tracing
        try:
            for (owner, name, original), replace in zip(originals, replacements, strict=True):
                setattr(owner, name, replace(original))
            yield
        finally:
            for owner, name, original in originals:
                setattr(owner, name, original)
            _thread.tracing = previous
            hook.remove()


def _active() -> Tracing | None:
    return getattr(_thread, "tracing", None)


def _forward(original: Callable[..., Any]) -> Callable[..., Any]:
    def forward(self: Any, input: Any, add_input: Any = None) -> Any:
        tracing = _active()
        if tracing is None:
            return original(self, input, add_input)
        if add_input is not None:
            raise CaptureError(
                f"Layer {tracing.describe(self)} is called with add_input, which only spconv's quantised "
                "modules use. Add the features after the layer instead."
            )
        return convolve(tracing, self, input)

    return forward


def _dense(original: Callable[..., Any]) -> Callable[..., Any]:
    def dense(self: Any, channels_first: bool = True) -> Any:
        tracing = _active()
        if tracing is None:
            return original(self, channels_first)
        made = torch.ops.scn_fx.scatter_dense.default(
            self.features,
            self.indices,
            name="",  # known to the naming pass, from the module that calls
            format=tracing.axes,
            batch_size=self.batch_size,
            spatial_shape=list(self.spatial_shape),
        )
        return made if channels_first else made.permute(0, 2, 3, 4, 1)

    return dense


def _features(original: property) -> property:
    def assign(self: Any, value: torch.Tensor) -> None:
        # Models written for spconv 1.x assign features; spconv 2.x forbids it, though it means the same.
        if _active() is None:
            original.__set__(self, value)
        else:
            self._features = value

    return property(original.fget, assign, doc=original.__doc__)


def _before_forward(module: Any, args: Any) -> None:
    """Refuse modules that cannot be captured, before their forward does something hard to explain."""
    tracing = _active()
    if tracing is None:
        return
    if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
        if module.training or (module.running_mean is None and module.running_var is None):
            why = "is in training mode" if module.training else "has no running statistics"
            raise CaptureError(
                f"BatchNorm {tracing.describe(module)} {why}. Capture folds running statistics into the "
                "convolution: call model.eval(), and keep track_running_stats=True."
            )
        return
    unsupported = _unsupported_base(module)
    if unsupported is not None:
        advice = _INSTEAD.get(
            unsupported,
            "Capture the part of the model before it, or choose an output before it with output=….",
        )
        raise CaptureError(f"Module {tracing.describe(module)} is not supported. {advice}")


def _unsupported_base(module: Any) -> str | None:
    """Name of the spconv class that makes a module unsupported; None for supported and foreign modules."""
    for base in type(module).__mro__:
        if base.__module__.split(".")[0] != "spconv":
            continue
        if base.__name__ in _SUPPORTED or base.__name__ == "SparseModule":
            return None
        return base.__name__
    return None
