# SPDX-License-Identifier: Apache-2.0
"""Redirect spconv to the operators of scn-fx for the time of one trace, and put everything back.

Inside the context the methods of `_REDIRECTIONS` do what a graph can hold, and one global forward-pre hook
names modules that no trace can follow. Each asks first whether *this thread* is tracing; other threads go on
running their models as before.
"""

from __future__ import annotations

import functools
import inspect
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols
from torch.nn.modules.module import register_module_forward_pre_hook

import scn_fx.ops  # noqa: F401 - registers the operators
from scn_fx.capture.convolution import convolve
from scn_fx.capture.foreign import refuse_foreign
from scn_fx.capture.given_frame import made_tensor
from scn_fx.capture.packages import spconv
from scn_fx.capture.pooling import globally_pooled, pooled
from scn_fx.capture.scattered import scatter_functions, summed
from scn_fx.capture.spconv1 import convolution_of, old_classes
from scn_fx.capture.tracing import Tracing
from scn_fx.capture.united import united
from scn_fx.capture.unsupported import stand_in
from scn_fx.dimensions import DIMENSIONS, lifted
from scn_fx.errors import CaptureError

__all__ = ["patched_attributes", "redirected"]

_lock = threading.RLock()
_thread = threading.local()


def patched_attributes() -> list[tuple[Any, str]]:
    """The attributes of spconv that `redirected` replaces and restores."""
    return [(owner, name) for owner, name, _ in _redirections()]


@contextmanager
def redirected(tracing: Tracing) -> Iterator[None]:
    """Within the context, spconv layers called by this thread emit scn-fx operators.

    One capture at a time: others wait. On leaving, by an exception too, every attribute is the object it was.
    """
    with _lock:
        previous = getattr(_thread, "tracing", None)
        older = _older_redirections(tracing)
        replaced = [*patched_attributes(), *((owner, name) for owner, name, _ in older)]
        originals = [(owner, name, owner.__dict__[name]) for owner, name in replaced]
        hook: Any = register_module_forward_pre_hook(_before_forward)
        _thread.tracing = tracing
        try:
            for owner, name, replace in _redirections():
                if _of_spconv(owner.__dict__[name]):
                    setattr(owner, name, replace(owner.__dict__[name]))
            for owner, name, replace in older:
                setattr(owner, name, replace(owner.__dict__[name]))
            yield
        finally:
            for owner, name, original in originals:
                setattr(owner, name, original)
            _thread.tracing = previous
            hook.remove()


def _redirections() -> list[tuple[Any, str, Callable[[Any], Any]]]:
    """Owner, attribute, and what makes the replacement from the original.

    `_conv_forward` rather than `forward`: subclasses override either, and both then compute what the class
    says.
    """
    module = spconv()
    tensor, pool, functional = module.SparseConvTensor, module.pool, module.functional
    return [
        (module.conv.SparseConvolutionBase, "_conv_forward", _conv_forward),
        (tensor, "__init__", _made),
        (tensor, "dense", _dense),
        (tensor, "features", _features),
        (pool.SparseMaxPool, "forward", _pool("max")),
        (pool.SparseAvgPool, "forward", _pool("mean")),
        (pool.SparseGlobalMaxOrAvgPool, "forward", _global_pool),
        (functional, "sparse_add", _sparse_add),
        (functional, "sparse_add_hash_based", _sparse_add),
        *((module.ops, name, _kernel) for name in _kernels()),
    ]


def _older_redirections(tracing: Tracing) -> list[tuple[Any, str, Callable[[Any], Any]]]:
    """The same for layers and tensors of mmcv.ops and of copies of spconv 1.x, and for torch_scatter."""
    layers, tensors = old_classes(tracing.model)
    sums = functools.partial(summed, active=_active)
    return [
        *((owner, name, sums) for owner, name in scatter_functions(tracing.model)),
        *((owner, "forward", _old_forward) for owner in layers),
        *((owner, "dense", _dense) for owner in tensors if "dense" in owner.__dict__),
    ]


def _old_forward(original: Callable[..., Any]) -> Callable[..., Any]:
    def forward(self: Any, input: Any) -> Any:
        tracing = _active()
        return original(self, input) if tracing is None else convolution_of(tracing, self, input)

    return forward


@functools.cache
def _kernels() -> tuple[str, ...]:
    """Names of the functions of `spconv.pytorch.ops`."""
    ops = spconv().ops
    found = vars(ops).items()
    return tuple(n for n, v in found if inspect.isfunction(v) and v.__module__ == ops.__name__)


def _of_spconv(attribute: Any) -> bool:
    """Whether an attribute is spconv's own; one that somebody has replaced is run as it is."""
    function = attribute.fget if isinstance(attribute, property) else attribute
    return str(getattr(function, "__module__", "")).partition(".")[0] == "spconv"


def _active() -> Tracing | None:
    return getattr(_thread, "tracing", None)


def _conv_forward(original: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(original)

    def forward(*args: Any, **kwargs: Any) -> Any:
        tracing = _active()
        if tracing is None:
            return original(*args, **kwargs)
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        given = bound.arguments
        module, tensor = given["self"], given["input"]
        if given["add_input"] is not None or given["output_scale"] is not None:
            reason = (
                f"Layer {tracing.describe(module)} is called with add_input or output_scale, which only "
                "spconv's quantised modules use. Capture the float model, and add features after the layer."
            )
            return stand_in(tensor, reason, module.out_channels, new_sites=not module.subm)
        activation = str(given["act_type"].name)
        alpha = float(given["act_alpha"])
        return convolve(tracing, module, tensor, given["weight"], given["bias"], activation, alpha)

    return forward


def _made(original: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(original)

    def __init__(*args: Any, **kwargs: Any) -> None:
        tracing = _active()
        # spconv copies its tensors by their constructor too.
        if tracing is not None and not _within_spconv():
            bound = signature.bind(*args, **kwargs)
            names = ("features", "indices", "spatial_shape", "batch_size")
            found = made_tensor(tracing, *(bound.arguments[name] for name in names))
            bound.arguments.update(zip(names[1:], found, strict=True))
            args, kwargs = bound.args, bound.kwargs
            _has_sites(found[0])
        original(*args, **kwargs)

    return __init__


def _has_sites(indices: Any) -> None:
    """Let the trace know of sites that the forward has chosen or merged that there are some.

    Sequences of spconv skip their layers where there are none, which a trace cannot know of a choice by
    values. Of sites that layers make it knows that they are two or more.
    """
    if isinstance(indices, torch.Tensor) and free_unbacked_symbols(indices.shape[0]):
        torch._check(indices.shape[0] >= 2)


def _within_spconv() -> bool:
    """Whether the caller of the function that asks is code of spconv or of capture itself."""
    name = str(sys._getframe(2).f_globals.get("__name__", ""))
    return name.partition(".")[0] == "spconv" or name.startswith("scn_fx.capture.")


def _dense(original: Callable[..., Any]) -> Callable[..., Any]:
    def dense(self: Any, channels_first: bool = True) -> Any:
        tracing = _active()
        shape = list(self.spatial_shape)
        if tracing is None or len(shape) not in DIMENSIONS:  # others are not captured, and may be traced
            return original(self, channels_first)
        made = torch.ops.scn_fx.scatter_dense.default(
            self.features,
            self.indices,
            name="",  # known to the naming pass, from the module that calls
            format=tracing.axes,
            batch_size=int(self.batch_size),
            spatial_shape=lifted(shape, 1),
        )
        if len(shape) < 3:
            made = made.reshape(*made.shape[:2], *shape)
        return made if channels_first else made.permute(0, *range(2, made.dim()), 1)

    return dense


def _features(original: property) -> property:
    def assign(self: Any, value: torch.Tensor) -> None:
        # Models written for spconv 1.x assign features; spconv 2.x forbids it, though it means the same.
        if _active() is None:
            original.__set__(self, value)
        else:
            self._features = value

    return property(original.fget, assign, doc=original.__doc__)


def _pool(kind: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def replacement(original: Callable[..., Any]) -> Callable[..., Any]:
        def forward(self: Any, input: Any) -> Any:
            tracing = _active()
            return original(self, input) if tracing is None else pooled(tracing, self, input, kind)

        return forward

    return replacement


def _global_pool(original: Callable[..., Any]) -> Callable[..., Any]:
    def forward(self: Any, input: Any) -> Any:
        tracing = _active()
        return original(self, input) if tracing is None else globally_pooled(tracing, self, input)

    return forward


def _sparse_add(original: Callable[..., Any]) -> Callable[..., Any]:
    def add(*tensors: Any) -> Any:
        tracing = _active()
        return original(*tensors) if tracing is None else united(tracing, tensors, original.__name__)

    return add


def _kernel(original: Callable[..., Any]) -> Callable[..., Any]:
    """A function of `spconv.pytorch.ops`: on tensors it calls compiled code, which no trace can follow."""

    def kernel(*args: Any, **kwargs: Any) -> Any:
        given = [*args, *kwargs.values()]
        if _active() is None or not any(isinstance(value, torch.Tensor) for value in given):
            return original(*args, **kwargs)
        raise CaptureError(
            f"spconv.ops.{original.__name__} is called by other code than spconv's layers. Capture knows "
            "convolutions by their modules: use SubMConv3d, SparseConv3d, …, or end the captured part before."
        )

    return kernel


def _before_forward(module: Any, args: Any) -> None:
    """Refuse modules that no trace can follow, before their forward does something hard to explain."""
    tracing = _active()
    if tracing is None:
        return
    refuse_foreign(tracing, module)
    base = spconv().conv.SparseConvolutionBase
    replaced = base._conv_forward
    if isinstance(module, base) and type(module)._conv_forward is replaced and not _of_capture(replaced):
        raise CaptureError(
            f"Layer {tracing.describe(module)} runs {replaced.__module__}.{replaced.__qualname__}, which has "
            "been put in the place of SparseConvolutionBase._conv_forward and hides spconv's own from "
            "capture. Put that one back before capture; a subclass may override the method, and a hook "
            "change its result."
        )


def _of_capture(function: Any) -> bool:
    return str(function.__module__) == __name__
