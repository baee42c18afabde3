# SPDX-License-Identifier: Apache-2.0
"""Building blocks of the encoders: convolution, BatchNorm, ReLU; and the residual block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import spconv.pytorch as spconv
import torch
from torch import nn

__all__ = ["BATCH_NORM_EPS", "ResidualBlock", "conv_norm_relu", "norm", "with_features"]

BATCH_NORM_EPS = 1e-3
"""Epsilon of every BatchNorm in CenterPoint's and OpenPCDet's encoders; torch's default is 1e-5."""


_SUBMANIFOLD = {2: spconv.SubMConv2d, 3: spconv.SubMConv3d}
_STRIDED = {2: spconv.SparseConv2d, 3: spconv.SparseConv3d}


def norm(channels: int) -> nn.BatchNorm1d:
    """BatchNorm over sites, with the field's epsilon and momentum."""
    return nn.BatchNorm1d(channels, eps=BATCH_NORM_EPS, momentum=0.01)


def with_features(tensor: Any, features: torch.Tensor) -> Any:
    """`tensor` with other features, in a way that spconv 1.x and 2.x both understand, as models do it."""
    if "replace_feature" in tensor.__dir__():
        return tensor.replace_feature(features)
    tensor.features = features
    return tensor


def conv_norm_relu(
    in_channels: int,
    out_channels: int,
    kernel_size: int | Sequence[int] = 3,
    *,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    indice_key: str | None = None,
    submanifold: bool = False,
    inplace: bool = False,
    ndim: int = 3,
) -> list[nn.Module]:
    """Layers of one step: a convolution of `ndim` dimensions without bias, BatchNorm, ReLU."""
    conv: nn.Module
    if submanifold:
        conv = _SUBMANIFOLD[ndim](
            in_channels, out_channels, kernel_size, padding=padding, bias=False, indice_key=indice_key
        )
    else:
        conv = _STRIDED[ndim](
            in_channels, out_channels, kernel_size, stride, padding, bias=False, indice_key=indice_key
        )
    return [conv, norm(out_channels), nn.ReLU(inplace=inplace)]


class ResidualBlock(spconv.SparseModule):
    """Two submanifold convolutions with BatchNorm, added to the block's input [N, channels]."""

    def __init__(self, channels: int, indice_key: str | None, *, bias: bool = True, ndim: int = 3) -> None:
        super().__init__()
        conv = _SUBMANIFOLD[ndim]
        self.conv1 = conv(channels, channels, 3, padding=1, bias=bias, indice_key=indice_key)
        self.bn1 = norm(channels)
        self.relu = nn.ReLU()
        self.conv2 = conv(channels, channels, 3, padding=1, bias=bias, indice_key=indice_key)
        self.bn2 = norm(channels)

    def forward(self, x: Any) -> Any:
        """SparseConvTensor in, SparseConvTensor out."""
        out = self.conv1(x)
        out = with_features(out, self.bn1(out.features))
        out = with_features(out, self.relu(out.features))
        out = self.conv2(out)
        out = with_features(out, self.bn2(out.features))
        out = with_features(out, out.features + x.features)
        return with_features(out, self.relu(out.features))
