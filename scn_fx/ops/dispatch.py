# SPDX-License-Identifier: Apache-2.0
"""How operators reach the devices."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import torch

from scn_fx.errors import ArgumentError
from scn_fx.ops.tensors import check_tensors, tensor_owner

__all__ = ["Operator", "define", "fake", "only_shapes_matter"]

_library = torch.library.Library("scn_fx", "FRAGMENT")


class Operator:
    """``scn_fx::name``: its kernels, fake kernel and gradient; called like a function.

    What `torch.library.custom_op` makes does the same, but looks up all arguments of the schema at each call:
    with the twenty of a convolution, that takes longer than a GPU takes for its products.
    """

    def __init__(self, name: str, schema: str, kernel: Callable[..., Any]) -> None:
        functools.update_wrapper(self, kernel)
        self.name = name
        _library.define(name + schema, tags=(torch.Tag.pt2_compliant_tag,))
        self.overload: Any = getattr(torch.ops.scn_fx, name).default

        def on_device(*args: Any, **kwargs: Any) -> Any:
            check_tensors(name, args, kwargs, in_memory=True)
            return kernel(*args, **kwargs)

        def elsewhere(*args: Any, **kwargs: Any) -> NoReturn:
            check_tensors(name, args, kwargs, in_memory=True)
            raise ArgumentError(f"{tensor_owner(name, kwargs)}: there is no kernel for tensors of this kind.")

        for key in ("CPU", "CUDA"):
            _library.impl(name, on_device, key)
        for key in ("CompositeExplicitAutograd", "NestedTensorCPU"):
            _library.impl(name, elsewhere, key)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.overload(*args, **kwargs)

    def register_autograd(self, backward: Callable[..., Any], *, setup_context: Callable[..., None]) -> None:
        """The gradient, as `torch.library.register_autograd` takes it."""
        overload = self.overload
        defaults = {a.name: a.default_value for a in overload._schema.arguments if a.has_default_value()}

        def below(keyset: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
            with torch._C._AutoDispatchBelowAutograd():
                return overload.redispatch(keyset & torch._C._after_autograd_keyset, *args, **kwargs)

        class Gradient(torch.autograd.Function):
            @staticmethod
            def forward(ctx: Any, *args: Any) -> Any:
                *flat, (keyset, kwargs, lengths) = args
                operands = _nested(flat, lengths)
                result = below(keyset, operands, kwargs)
                setup_context(ctx, tuple(operands), {**defaults, **kwargs}, result)
                return result

            @staticmethod
            def backward(ctx: Any, *grads: Any) -> Any:
                made = backward(ctx, *grads)
                return *_flat(made if isinstance(made, tuple) else (made,)), None

        Gradient.__name__ = f"Gradient_{self.name}"

        def autograd(keyset: Any, *args: Any, **kwargs: Any) -> Any:
            flat = _flat(args)
            needed = any(isinstance(a, torch.Tensor) and a.requires_grad for a in flat)
            if needed and torch.is_grad_enabled():
                lengths = [len(a) if isinstance(a, list) else None for a in args]
                return Gradient.apply(*flat, (keyset, kwargs, lengths))
            return below(keyset, args, kwargs)

        _library.impl(self.name, autograd, "Autograd", with_keyset=True)


def _flat(values: Sequence[Any]) -> list[Any]:
    """Operands, those of lists one by one: autograd does not look into lists."""
    return [each for value in values for each in (value if isinstance(value, list) else (value,))]


def _nested(flat: Sequence[Any], lengths: Sequence[int | None]) -> list[Any]:
    """The operands again; `lengths`: of those that are lists."""
    left = iter(flat)
    return [next(left) if n is None else [next(left) for _ in range(n)] for n in lengths]


def define(name: str, schema: str) -> Callable[[Callable[..., Any]], Operator]:
    """Register the decorated function as ``scn_fx::name`` on the CPU and on CUDA; refuse other tensors."""
    return lambda kernel: Operator(name, schema, kernel)


def fake(operator: Operator) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register the decorated function as the kernel of `operator` that knows shapes only."""

    def register(kernel: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(kernel)
        def on_shapes(*args: Any, **kwargs: Any) -> Any:
            check_tensors(operator.name, args, kwargs, in_memory=False)
            return kernel(*args, **kwargs)

        torch.library.register_fake(f"scn_fx::{operator.name}", on_shapes, lib=_library)
        return kernel

    return register


def only_shapes_matter() -> bool:
    """Whether an ONNX exporter is tracing: kernels then return zeros of the right shape.

    The TorchScript exporter runs the network on the placeholder sites of `input_sites`. Real arithmetic on
    them would take time for nothing and could overflow float16 or exceed a bound that real sites keep.
    """
    return bool(torch.onnx.is_in_onnx_export())
