# SPDX-License-Identifier: Apache-2.0
"""Sparse layers with the interface of spconv 1.x, as mmcv.ops and copies in projects have it; no kernels."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class SparseConvTensor:
    def __init__(self, features: Any, indices: Any, spatial_shape: Any, batch_size: int) -> None:
        self.features, self.indices = features, indices
        self.spatial_shape, self.batch_size = spatial_shape, batch_size
        self.indice_dict: dict[Any, Any] = {}
        self.grid = None

    def find_indice_pair(self, key: Any) -> Any:
        return self.indice_dict.get(key)

    def dense(self, channels_first: bool = True) -> torch.Tensor:
        raise RuntimeError("compiled code")


class SparseModule(nn.Module):
    pass


class SparseConvolution(SparseModule):
    def __init__(
        self, ndim: int, channels: int, out: int, kernel: int, stride: int = 1, padding: int = 0,
        bias: bool = False, **kinds: Any,
    ) -> None:  # fmt: skip
        super().__init__()
        self.ndim, self.in_channels, self.out_channels, self.groups = ndim, channels, out, 1
        self.kernel_size, self.stride, self.padding = ([n] * ndim for n in (kernel, stride, padding))
        self.dilation, self.output_padding, self.conv1x1 = [1] * ndim, [0] * ndim, kernel == 1
        for name in ("subm", "inverse", "transposed", "fused_bn"):
            setattr(self, name, kinds.pop(name, False))
        self.indice_key = kinds.pop("indice_key", None)
        self.weight = nn.Parameter(torch.randn(*self.kernel_size, channels, out) * 0.2)
        self.bias = nn.Parameter(torch.randn(out)) if bias else None

    def forward(self, input: SparseConvTensor) -> SparseConvTensor:
        assert isinstance(input, SparseConvTensor)
        raise RuntimeError("compiled code")


class SubMConv3d(SparseConvolution):
    def __init__(self, channels: int, out: int, kernel: int, **options: Any) -> None:
        super().__init__(3, channels, out, kernel, subm=True, **options)


class SparseConv3d(SparseConvolution):
    def __init__(self, channels: int, out: int, kernel: int, stride: int, **options: Any) -> None:
        super().__init__(3, channels, out, kernel, stride, **options)


class SparseInverseConv3d(SparseConvolution):
    def __init__(self, channels: int, out: int, kernel: int, **options: Any) -> None:
        super().__init__(3, channels, out, kernel, inverse=True, **options)


class SparseMaxPool3d(SparseModule):
    def forward(self, input: SparseConvTensor) -> SparseConvTensor:
        raise RuntimeError("compiled code")


class SparseSequential(nn.Sequential):
    def forward(self, input: Any) -> Any:
        for module in self:
            if isinstance(module, SparseModule):
                input = module(input)
            elif isinstance(input, SparseConvTensor):
                if input.indices.shape[0] != 0:
                    input.features = module(input.features)
            else:
                input = module(input)
        return input
