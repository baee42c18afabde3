# SPDX-License-Identifier: Apache-2.0
"""What gradients of convolutions are made of: float32 products over kernel maps, each other's derivatives.

``product(x, w, map)[m] = Σ_k w[:, k] · x[map[m, k]]`` is linear in x and in w. Its derivative by x is the
product over the inverse map with the weight transposed; that by w is
``weight_gradient(g, x, map)[:, k] = Σ_m g[m] ⊗ x[map[m, k]]``, whose own derivatives are products again.
"""

from __future__ import annotations

from typing import Any

import torch

from scn_fx.errors import SiteError
from scn_fx.ops.checks import check_kernel_map, shape_text
from scn_fx.ops.devices import kernels_for
from scn_fx.ops.dispatch import define, fake
from scn_fx.ops.kernel_maps import inverse_map
from scn_fx.ops.known_maps import inverse_of

__all__ = ["product", "transposed_product", "weight_gradient"]


def _check_rows(name: str, what: str, rows: torch.Tensor) -> None:
    if rows.dim() != 2 or rows.dtype != torch.float32:
        raise SiteError(f"Layer {name!r}: {what} must be float32 [rows, C], got {shape_text(rows)}.")


def _check_product(features: torch.Tensor, weight: torch.Tensor, kernel_map: torch.Tensor, name: str) -> None:
    _check_rows(name, "features", features)
    if weight.dim() != 3 or weight.dtype != torch.float32 or weight.shape[2] != features.shape[1]:
        raise SiteError(
            f"Layer {name!r}: the weight must be float32 [out, K, {features.shape[1]}], got "
            f"{shape_text(weight)}."
        )
    check_kernel_map(name, kernel_map, int(weight.shape[1]))


@define("product", "(Tensor features, Tensor weight, Tensor kernel_map, *, str name) -> Tensor")
def product(
    features: torch.Tensor, weight: torch.Tensor, kernel_map: torch.Tensor, *, name: str
) -> torch.Tensor:
    """Float32 [M, out] of `features` [N, in], `weight` [out, K, in] and `kernel_map` int32 [M, K].

    SiteError for a map that reads rows that `features` does not have.
    """
    _check_product(features, weight, kernel_map, name)
    spread = weight.reshape(weight.shape[0], -1, 1, 1, weight.shape[2])
    return kernels_for(features).convolution(
        features, spread, None, kernel_map, name, ("None", 0.0), "fp32", "fp32", 0.0, None
    )


@fake(product)
def _(features: torch.Tensor, weight: torch.Tensor, kernel_map: torch.Tensor, *, name: str) -> torch.Tensor:
    _check_product(features, weight, kernel_map, name)
    return features.new_empty((kernel_map.shape[0], weight.shape[0]))


def _check_gradient(grad: torch.Tensor, features: torch.Tensor, kernel_map: torch.Tensor, name: str) -> None:
    _check_rows(name, "the gradient", grad)
    _check_rows(name, "features", features)
    check_kernel_map(name, kernel_map)


@define("weight_gradient", "(Tensor grad, Tensor features, Tensor kernel_map, *, str name) -> Tensor")
def weight_gradient(
    grad: torch.Tensor, features: torch.Tensor, kernel_map: torch.Tensor, *, name: str
) -> torch.Tensor:
    """Float32 [out, K, in] of `grad` [M, out], `features` [N, in] and `kernel_map` int32 [M, K].

    Each run sums in the same order. SiteError as of `product`.
    """
    _check_gradient(grad, features, kernel_map, name)
    if grad.shape[0] != kernel_map.shape[0]:
        raise SiteError(
            f"Layer {name!r}: expected one row of the gradient per row of the kernel map, got "
            f"{shape_text(grad)} and {shape_text(kernel_map)}."
        )
    return kernels_for(grad).weight_gradient(grad, features, kernel_map, name)


@fake(weight_gradient)
def _(grad: torch.Tensor, features: torch.Tensor, kernel_map: torch.Tensor, *, name: str) -> torch.Tensor:
    _check_gradient(grad, features, kernel_map, name)
    return grad.new_empty((grad.shape[1], kernel_map.shape[1], features.shape[1]))


def transposed_product(
    rows: torch.Tensor, weight: torch.Tensor, kernel_map: torch.Tensor, count: int, name: str
) -> torch.Tensor:
    """The transpose of `product` as a map of features: float32 [count, in] of `rows` [M, out]."""

    def make() -> torch.Tensor:
        return inverse_map(kernel_map, kernel_map.new_empty((count, 4)), name=name)  # how many sites matters

    back = inverse_of(kernel_map, count, make)
    return product(rows, weight.permute(2, 1, 0), back, name=name)


def _save(
    ctx: Any, inputs: tuple[Any, ...], keyword_only_inputs: dict[str, Any], output: torch.Tensor
) -> None:
    ctx.save_for_backward(*inputs)
    ctx.name = keyword_only_inputs["name"]


def _product_backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None, None]:
    features, weight, kernel_map = ctx.saved_tensors
    by_features = by_weight = None
    if ctx.needs_input_grad[0]:
        by_features = transposed_product(grad, weight, kernel_map, features.shape[0], ctx.name)
    if ctx.needs_input_grad[1]:
        by_weight = weight_gradient(grad, features, kernel_map, name=ctx.name)
    return by_features, by_weight, None


def _gradient_backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None, None]:
    rows, features, kernel_map = ctx.saved_tensors
    by_rows = by_features = None
    if ctx.needs_input_grad[0]:
        by_rows = product(features, grad, kernel_map, name=ctx.name)
    if ctx.needs_input_grad[1]:
        by_features = transposed_product(rows, grad, kernel_map, features.shape[0], ctx.name)
    return by_rows, by_features, None


product.register_autograd(_product_backward, setup_context=_save)
weight_gradient.register_autograd(_gradient_backward, setup_context=_save)
