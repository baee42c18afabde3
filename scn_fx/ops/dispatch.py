# SPDX-License-Identifier: Apache-2.0
"""How operators reach the devices: registration and the compiled module."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any, NoReturn

import torch

from scn_fx.errors import ArgumentError, ScnError
from scn_fx.ops.tensors import check_tensors, tensor_owner

__all__ = ["Operator", "core", "define", "fake", "only_shapes_matter"]

Operator = Any
"""A torch.library.CustomOpDef, whose module is private in some of the supported torch releases."""

_library = torch.library.Library("scn_fx", "FRAGMENT")


def define(name: str, schema: str) -> Callable[[Callable[..., Any]], Operator]:
    """Register the decorated function as ``scn_fx::name`` on the CPU and on CUDA; refuse other tensors."""

    def register(kernel: Callable[..., Any]) -> Operator:
        @functools.wraps(kernel)
        def on_device(*args: Any, **kwargs: Any) -> Any:
            check_tensors(name, args, kwargs, in_memory=True)
            return kernel(*args, **kwargs)

        operator = torch.library.custom_op(
            f"scn_fx::{name}", on_device, mutates_args=(), device_types=("cpu", "cuda"), schema=schema
        )

        def elsewhere(*args: Any, **kwargs: Any) -> NoReturn:
            check_tensors(name, args, kwargs, in_memory=True)
            raise ArgumentError(f"{tensor_owner(name, kwargs)}: there is no kernel for tensors of this kind.")

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
