# SPDX-License-Identifier: Apache-2.0
"""Sparse layers of mmcv.ops, and of copies of spconv 1.x that projects carry, while they are captured.

They are spconv's layers of another age: the same attributes, weights [kz, ky, kx, in, out], kernel maps kept
as tuples, features assigned in place. They are known by their classes and attributes, for nobody can import
all of them; what they compute is what `convolve` makes of them.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from scn_fx.capture.convolution import convolve
from scn_fx.capture.packages import spconv
from scn_fx.capture.tracing import Tracing

__all__ = ["convolution_of", "is_convolution", "is_sparse", "old_classes", "with_features"]

_LAYER = frozenset(
    {
        "bias", "conv1x1", "dilation", "groups", "in_channels", "indice_key", "inverse", "kernel_size",
        "ndim", "out_channels", "output_padding", "padding", "stride", "subm", "transposed", "weight",
    }
)  # fmt: skip
_TENSOR = ("features", "indices", "spatial_shape", "batch_size", "indice_dict")


def is_convolution(value: object) -> bool:
    """Whether a module is such a layer."""
    return isinstance(value, nn.Module) and _owner(type(value)) is not None and _names(value) >= _LAYER


def is_sparse(value: object) -> bool:
    """Whether a value is a sparse tensor, of spconv 2.x or of these libraries."""
    if isinstance(value, spconv().SparseConvTensor):
        return True
    named = any(base.__name__ == "SparseConvTensor" for base in type(value).__mro__)
    return named and all(hasattr(value, name) for name in _TENSOR)


def with_features(tensor: Any, features: torch.Tensor) -> Any:
    """A sparse tensor of either kind with other features."""
    if isinstance(tensor, spconv().SparseConvTensor):
        return tensor.replace_feature(features)
    made = copy.copy(tensor)
    made.features = features
    return made


def old_classes(model: nn.Module) -> tuple[set[type], set[type]]:
    """The classes in a model that have the forward of such layers, and those of their sparse tensors."""
    layers: set[type] = set()
    tensors: set[type] = set()
    for module in model.modules():
        owner = _owner(type(module))
        if owner is not None and is_convolution(module):
            layers.add(owner)
            tensor = owner.__dict__["forward"].__globals__.get("SparseConvTensor")
            if isinstance(tensor, type) and not _of_spconv(tensor):
                tensors.add(tensor)
    return layers, tensors


def convolution_of(tracing: Tracing, module: Any, tensor: Any) -> Any:
    """What such a layer gives for such a tensor, as a tensor of the same class."""
    axes = module.ndim
    weight = module.weight.permute(axes + 1, *range(axes + 1))  # [out, kz, ky, kx, in]
    made = convolve(tracing, module, _Tensor(tensor), weight, module.bias, "None_")
    return made.unwrapped()


class _Tensor:
    """A sparse tensor with the methods that spconv 2.x's has."""

    def __init__(self, tensor: Any) -> None:
        self._tensor = tensor
        self.features, self.indices = tensor.features, tensor.indices
        self.spatial_shape = [int(size) for size in tensor.spatial_shape]
        self.batch_size, self.indice_dict = tensor.batch_size, tensor.indice_dict

    def find_indice_pair(self, key: Any) -> Any:
        return None if key is None else self.indice_dict.get(key)

    def shadow_copy(self) -> _Tensor:
        return copy.copy(self)

    def replace_feature(self, features: torch.Tensor) -> _Tensor:
        made = copy.copy(self)
        made.features = features
        return made

    def unwrapped(self) -> Any:
        tensor = copy.copy(self._tensor)
        tensor.features, tensor.indices = self.features, self.indices
        tensor.spatial_shape, tensor.indice_dict = list(self.spatial_shape), self.indice_dict
        return tensor


def _owner(cls: type) -> type | None:
    """The class that has the forward of such a layer."""
    if any(_of_spconv(base) for base in cls.__mro__):
        return None
    for base in cls.__mro__:
        if base.__name__ == "SparseConvolution" and callable(base.__dict__.get("forward")):
            return base
    return None


def _of_spconv(cls: type) -> bool:
    return cls.__module__.partition(".")[0] == "spconv"


def _names(module: nn.Module) -> set[str]:
    return {*vars(module), *module._parameters}
