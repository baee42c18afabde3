# SPDX-License-Identifier: Apache-2.0
"""Which kernels serve a tensor: those for the CPU or those for CUDA, under the same names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch

from scn_fx.ops.map_call import MapCall

__all__ = ["Kernels", "kernels_for"]


class Kernels(Protocol):
    """What a device does. Operands have been checked; what only values tell is checked here."""

    def subm_map(self, indices: torch.Tensor, call: MapCall) -> torch.Tensor: ...

    def conv_map(self, indices: torch.Tensor, call: MapCall) -> tuple[torch.Tensor, torch.Tensor]: ...

    def inverse_map(self, kernel_map: torch.Tensor, rows: int, name: str) -> torch.Tensor: ...

    def convolution(
        self,
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
    ) -> torch.Tensor: ...

    def weight_gradient(
        self, grad: torch.Tensor, features: torch.Tensor, kernel_map: torch.Tensor, name: str
    ) -> torch.Tensor: ...

    def add(
        self,
        a: torch.Tensor,
        b: torch.Tensor,
        name: str,
        activation: tuple[str, float],
        precision: str,
        output_precision: str,
        amax0: float,
        amax1: float,
    ) -> torch.Tensor: ...

    def scatter_dense(
        self,
        features: torch.Tensor,
        indices: torch.Tensor,
        name: str,
        batch_size: int,
        spatial_shape: Sequence[int],
    ) -> torch.Tensor: ...


def kernels_for(tensor: torch.Tensor) -> Kernels:
    """The kernels of the device that `tensor` lies on."""
    if tensor.is_cuda:
        from scn_fx.ops import on_cuda

        return on_cuda
    from scn_fx.ops import on_cpu

    return on_cpu
