# SPDX-License-Identifier: Apache-2.0
"""Sums of rows by torch_scatter, which asks for the largest row number: no trace can go on with that."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

__all__ = ["ROW_SUMS", "scatter_functions", "summed"]

_PACKAGE = "torch_scatter"
_NAMES = ("scatter_add", "scatter_sum")


@torch.library.custom_op(
    "scn_fx::row_sums", mutates_args=(), schema="(Tensor values, Tensor index) -> Tensor"
)
def _row_sums(values: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    count = int(index.max()) + 1 if len(index) else 0
    return values.new_zeros((count, values.shape[1])).index_add(0, index, values)


@_row_sums.register_fake
def _(values: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    return values.new_empty((torch.library.get_ctx().new_dynamic_size(min=2), values.shape[1]))


_row_sums.register_autograd(
    lambda ctx, grad: (grad[ctx.saved_tensors[0]], None),
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(inputs[1]),
)

ROW_SUMS = torch.ops.scn_fx.row_sums.default
"""The operator of a traced sum, which `scn_fx.passes.lower_merging` knows."""


def scatter_functions(model: nn.Module) -> list[tuple[Any, str]]:
    """Where the sums of torch_scatter are found: the package's modules, and those of the model's classes."""
    homes = [module for name, module in sys.modules.items() if name.partition(".")[0] == _PACKAGE]
    known = {
        id(vars(home)[name]) for home in homes for name in _NAMES if inspect.isfunction(vars(home).get(name))
    }
    own = {type(module).__module__ for module in model.modules()}
    homes += [sys.modules[name] for name in sorted(own) if name in sys.modules]
    found = {
        (id(home), name): (home, name) for home in homes for name, v in vars(home).items() if id(v) in known
    }
    return list(found.values())


def summed(original: Callable[..., Any], active: Callable[[], Any]) -> Callable[..., Any]:
    """What stands for a sum of torch_scatter while `active()` is a capture: whole rows, a number for each."""

    @functools.wraps(original)
    def scatter(*args: Any, **kwargs: Any) -> Any:
        if active() is None or not (found := _plain(original, args, kwargs)):
            return original(*args, **kwargs)
        return ROW_SUMS(*found)

    return scatter


def _plain(original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """Values and row numbers of a call that sums whole rows; nothing for any other."""
    given = inspect.signature(original).bind(*args, **kwargs)
    given.apply_defaults()
    values, index, *rest = given.args
    options = dict(zip(list(given.signature.parameters)[2:], rest, strict=False)) | given.kwargs
    whole = values.dim() == 2 and index.dim() == 1 and options.get("dim") in (0, -2)
    return (values, index) if whole and not options.get("out") and options.get("dim_size") is None else ()
