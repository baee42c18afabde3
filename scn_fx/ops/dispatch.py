# SPDX-License-Identifier: Apache-2.0
"""How operators reach the devices: registration, the compiled module, numpy views."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any, NoReturn

import torch

from scn_fx.errors import ArgumentError, ScnError
from scn_fx.ops.tensors import check_tensors, tensor_owner

__all__ = ["Operator", "array", "core", "define", "fake", "only_shapes_matter", "refuse_cuda"]

Operator = Any
"""A torch.library.CustomOpDef, whose module is private in some of the supported torch releases."""

_library = torch.library.Library("scn_fx", "FRAGMENT")


def refuse_cuda(operator: str, layer: str | None = None) -> NoReturn:
    """The dispatch point of CUDA tensors, until the CUDA backend's kernels take its place."""
    where = f"Layer {layer!r}: " if layer else ""
    raise ScnError(
        f"{where}scn_fx::{operator} expects CPU tensors and got CUDA tensors; this build has no CUDA kernel "
        "for it. Move the graph and its inputs to the CPU first: graph.cpu(), features.cpu(), indices.cpu()."
    )


def define(name: str, schema: str) -> Callable[[Callable[..., Any]], Operator]:
    """Register the decorated function as the CPU kernel of ``scn_fx::name``; refuse all other tensors."""

    def register(kernel: Callable[..., Any]) -> Operator:
        @functools.wraps(kernel)
        def on_cpu(*args: Any, **kwargs: Any) -> Any:
            check_tensors(name, args, kwargs, in_memory=True)
            return kernel(*args, **kwargs)

        operator = torch.library.custom_op(
            f"scn_fx::{name}", on_cpu, mutates_args=(), device_types="cpu", schema=schema
        )

        def on_cuda(*args: object, **kwargs: Any) -> NoReturn:
            refuse_cuda(name, kwargs.get("name"))

        def elsewhere(*args: Any, **kwargs: Any) -> NoReturn:
            check_tensors(name, args, kwargs, in_memory=True)
            raise ArgumentError(f"{tensor_owner(name, kwargs)}: there is no kernel for tensors of this kind.")

        operator.register_kernel("cuda", on_cuda)
        operator.register_kernel(None, elsewhere)
        _library.impl(name, elsewhere, "NestedTensorCPU")
        return operator

    return register


def fake(operator: Operator) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register the decorated function as the kernel of `operator` that knows shapes only."""

    def register(kernel: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(kernel)
        def on_shapes(*args: Any, **kwargs: Any) -> Any:
            check_tensors(operator._name.removeprefix("scn_fx::"), args, kwargs, in_memory=False)
            return kernel(*args, **kwargs)

        operator.register_fake(on_shapes)
        return kernel

    return register


def core() -> Any:
    """The compiled module; imported at the first run, so that tracing works where it is not built."""
    try:
        return importlib.import_module("scn_fx._core")
    except ImportError as error:
        raise ScnError(
            f"The compiled module scn_fx._core cannot be imported ({error}). Install scn-fx with pip, or "
            "build the extension of a source tree with `make ext`."
        ) from error


def only_shapes_matter() -> bool:
    """Whether an ONNX exporter is tracing: kernels then return zeros of the right shape.

    The TorchScript exporter runs the network on the placeholder sites of `input_sites`. Real arithmetic on
    them would take time for nothing and could overflow float16 or exceed a bound that real sites keep.
    """
    return bool(torch.onnx.is_in_onnx_export())


def array(tensor: torch.Tensor) -> Any:
    """`tensor` as a contiguous numpy array, sharing memory where it is contiguous already."""
    return tensor.detach().resolve_neg().contiguous().numpy()
