# SPDX-License-Identifier: Apache-2.0
"""The operators' kernels on the CPU: the engine's, over numpy views of the tensors. See `devices.Kernels`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from scn_fx.compiled import core
from scn_fx.ops.checks import to_half
from scn_fx.ops.map_call import MapCall

__all__ = [
    "add",
    "conv_map",
    "convolution",
    "inverse_map",
    "scatter_dense",
    "subm_map",
    "weight_gradient",
]


def _array(tensor: torch.Tensor) -> Any:
    """`tensor` as a contiguous numpy array, sharing memory where it is contiguous; bfloat16 as float32."""
    tensor = tensor.detach().resolve_neg()
    if tensor.dtype == torch.bfloat16:
        tensor = tensor.float()
    return tensor.contiguous().numpy()


def subm_map(indices: torch.Tensor, call: MapCall) -> torch.Tensor:
    g = call.geometry
    made = core().subm_map(
        _array(indices), call.batch_size, list(g.input_spatial_shape), list(g.kernel_size), list(g.dilation),
        name=call.name,
    )  # fmt: skip
    return torch.from_numpy(made)


def conv_map(indices: torch.Tensor, call: MapCall) -> tuple[torch.Tensor, torch.Tensor]:
    g = call.geometry
    sites, made = core().conv_map(
        _array(indices), call.batch_size, list(g.input_spatial_shape), list(g.output_spatial_shape),
        list(g.kernel_size), list(g.stride), list(g.padding), list(g.dilation), g.transposed,
        call.output_bound, name=call.name,
    )  # fmt: skip
    return torch.from_numpy(sites), torch.from_numpy(made)


def inverse_map(kernel_map: torch.Tensor, rows: int, name: str) -> torch.Tensor:
    return torch.from_numpy(core().inverse_map(_array(kernel_map), rows, name=name))


def convolution(
    features: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    kernel_map: torch.Tensor,
    name: str,
    activation: tuple[str, float],
    precision: str,
    output_precision: str,
    input_amax: float,
    weight_amax: Sequence[float] | None,
) -> torch.Tensor:
    if precision == "fp16":
        features = to_half(name, "features", features)
    if precision != "fp32":
        weight = to_half(name, "weight", weight)
        bias = None if bias is None else to_half(name, "bias", bias)
    quantised = precision == "int8"
    result = core().convolution(
        _array(features),
        _array(weight),
        None if bias is None else _array(bias.float()),
        _array(kernel_map),
        precision,
        output_precision,
        activation,
        input_amax,
        np.asarray(weight_amax, np.float32) if quantised else None,
        name=name,
    )
    return torch.from_numpy(result)


def weight_gradient(
    grad: torch.Tensor, features: torch.Tensor, kernel_map: torch.Tensor, name: str
) -> torch.Tensor:
    made = core().weight_gradient(_array(grad), _array(features), _array(kernel_map), name=name)
    return torch.from_numpy(made)


def add(
    a: torch.Tensor,
    b: torch.Tensor,
    name: str,
    activation: tuple[str, float],
    precision: str,
    output_precision: str,
    amax0: float,
    amax1: float,
) -> torch.Tensor:
    made = core().add(_array(a), _array(b), precision, output_precision, activation, amax0, amax1, name=name)
    return torch.from_numpy(made)


def scatter_dense(
    features: torch.Tensor,
    indices: torch.Tensor,
    name: str,
    batch_size: int,
    spatial_shape: Sequence[int],
) -> torch.Tensor:
    moved = features.detach()
    if features.dtype == torch.bfloat16:  # its bits are moved, whatever they mean
        moved = moved.resolve_neg().contiguous().view(torch.float16)
    made = core().scatter_dense(_array(moved), _array(indices), batch_size, list(spatial_shape), name=name)
    return torch.from_numpy(made).view(features.dtype)
